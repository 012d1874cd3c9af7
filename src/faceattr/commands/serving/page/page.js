// The page: takes a picture, sends it to POST /predict, and draws the answer over it.
import { closeCamera, hasCamera, openCamera, takePicture } from "./camera.js";
import { showFaces, sizeWords } from "./faces.js";

const of = (id) => document.getElementById(id);
let model = { limits: {} }, shown = "", pending = new AbortController();

async function describeModel() {
  model = await (await fetch("/model")).json();
  document.title = `${model.name} · faceattr`;
  of("title").textContent = model.name;
  const where = model.faces.mode === "none" ? "the whole picture, taken for one face" : "each face that is found";
  of("classes").textContent = `For ${where}: ${model.classes.join(model.multilabel ? ", " : " or ")}.`;
  of("summary").textContent = model.summary;
  of("notice").textContent = model.notice;
  of("address").textContent = location.origin;
}

function fail(message) {
  of("status").textContent = "";
  of("error").textContent = message;
  of("error").hidden = false;
}

function describe(answer) {
  const { faces } = answer, time = `in ${(answer.milliseconds / 1000).toFixed(2)} s`;
  if (model.faces.mode === "none" && faces.length) return `Answered ${time}.`;
  return faces.length ? `${faces.length} ${faces.length === 1 ? "face" : "faces"}, ${time}.` : "No face was found in this picture.";
}

async function show(image, note = "") {
  pending.abort();
  pending = new AbortController();
  of("error").hidden = true;
  of("result").hidden = of("legend").hidden = true;
  const most = model.limits.max_bytes;
  if (image.size > most) return fail(`The picture has ${sizeWords(image.size)}; this server takes ${sizeWords(most)} at most.`);
  of("status").textContent = "Looking at the picture …";
  try {
    const answer = await ask(image, pending.signal);
    of("status").textContent = `${describe(answer)} ${note}`.trim();
    await display(image, answer);
  } catch (error) {
    if (error.name !== "AbortError") fail(error.message);
  }
}

async function ask(image, signal) {
  const form = new FormData();
  form.append("image", image);
  let response;
  try {
    response = await fetch("/predict", { method: "POST", body: form, signal });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Error("The server does not answer.");
  }
  const content = await response.json();
  if (response.ok) return content;
  const after = response.headers.get("Retry-After");
  throw new Error(content.detail + (after ? ` Try again in ${after} s.` : ""));
}

async function display(image, answer) {
  const picture = of("picture");
  URL.revokeObjectURL(shown);
  picture.src = shown = URL.createObjectURL(image);
  picture.alt = `Your picture, ${answer.image.width} by ${answer.image.height} pixels`;
  of("result").hidden = false;
  try {
    await picture.decode();
    of("stage").classList.remove("unshown");
  } catch { // a format that this browser does not show
    picture.alt = "This browser cannot show the format of the picture; the answers are for it all the same.";
    of("stage").classList.add("unshown");
  }
  const legend = showFaces({ answer, model, image, stage: of("stage"), list: of("faces"), fail });
  of("legend").textContent = legend;
  of("legend").hidden = !answer.faces.length;
}

function take(files, how) {
  const images = [...files].filter((file) => file.type.startsWith("image/") || !file.type);
  if (!files.length) return;
  if (!images.length) return fail(`What you ${how} is not a picture.`);
  show(images[0], images.length > 1 ? `This is the first of the ${images.length} pictures.` : "");
}

of("file").addEventListener("change", (event) => {
  take(event.target.files, "chose");
  event.target.value = ""; // so that the same file can be chosen again
});
document.addEventListener("paste", (event) => take(event.clipboardData.files, "pasted"));
document.addEventListener("dragover", (event) => {
  event.preventDefault();
  document.body.classList.add("dragging");
});
document.addEventListener("dragleave", (event) => event.relatedTarget || document.body.classList.remove("dragging"));
document.addEventListener("drop", (event) => {
  event.preventDefault();
  document.body.classList.remove("dragging");
  take(event.dataTransfer.files, "dropped");
});

function viewfinder(open) {
  of("viewfinder").hidden = !open;
  of("drop").hidden = open;
  of(open ? "shoot" : "camera").focus();
}

of("camera").hidden = !hasCamera();
of("camera").addEventListener("click", async () => {
  of("error").hidden = true;
  try {
    await openCamera(of("video"));
    viewfinder(true);
  } catch (error) {
    fail(`The camera cannot be used: ${error.message}`);
  }
});
of("close").addEventListener("click", () => {
  closeCamera(of("video"));
  viewfinder(false);
});
of("shoot").addEventListener("click", async () => {
  const image = await takePicture(of("video"));
  closeCamera(of("video"));
  viewfinder(false);
  show(image);
});

describeModel().catch(() => fail("The server does not answer."));
