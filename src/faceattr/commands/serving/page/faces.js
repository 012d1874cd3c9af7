// The answers: a box over the picture and an entry in the list for each face.

const DOUBTFUL = 0.6; // below this, an answer is shown as uncertain, unless the server was started with abstain=…
const BARS = 12; // the most probable classes, where there are many

const percent = (probability) => `${(100 * probability).toFixed(probability > 0.9995 || probability < 0.0005 ? 0 : 1)}%`;
export const sizeWords = (bytes) => `${(bytes / 1e6).toFixed(1)} MB`;

function read(face, model) {
  const ranked = Object.entries(face.probabilities ?? {});
  if (!model.multilabel) ranked.sort((a, b) => b[1] - a[1]);
  if (!ranked.length) return { ranked, words: "no answer", doubtful: true, best: [] };
  const limit = model.abstain ?? DOUBTFUL;
  if (model.multilabel) {
    const unsure = ranked.filter(([, p]) => p > 1 - limit && p < limit).map(([name]) => name);
    const words = (face.predicted.join(", ") || "none of them") + (unsure.length ? ` (uncertain: ${unsure.join(", ")})` : "");
    return { ranked, words, doubtful: unsure.length > 0, best: face.predicted };
  }
  const [name, probability] = ranked[0], doubtful = probability < limit;
  const words = doubtful ? `uncertain, perhaps ${name}, ${percent(probability)}` : `${name}, ${percent(probability)}`;
  return { ranked, words, doubtful, best: [name] };
}

export function showFaces({ answer, model, image, stage, list, fail }) {
  stage.querySelectorAll(".box").forEach((box) => box.remove());
  list.replaceChildren();
  const whole = model.faces.mode === "none";
  answer.faces.forEach((face, number) => {
    const answered = read(face, model), title = whole ? "Answer" : `Face ${number + 1}`;
    const entry = entryOf(face, answered, title, model, image, whole ? null : number, fail);
    list.append(entry);
    if (whole) return;
    const box = boxOf(face, answered, title, answer.image);
    stage.append(box);
    const mark = (on) => [box, entry].forEach((part) => part.classList.toggle("current", on));
    for (const part of [box, entry]) {
      part.addEventListener("pointerenter", () => mark(true));
      part.addEventListener("pointerleave", () => mark(false));
      part.addEventListener("focusin", () => mark(true));
      part.addEventListener("focusout", () => mark(false));
    }
    box.addEventListener("click", () => entry.focus());
  });
  const limit = Math.round(100 * (model.abstain ?? DOUBTFUL));
  return model.multilabel
    ? `Dashed and “uncertain”: an attribute with a probability between ${100 - limit}% and ${limit}%.`
    : `Dashed and “uncertain”: no class has a probability of ${limit}% or more.`;
}

function boxOf(face, answered, title, size) {
  const { x, y, width, height } = face.box, box = document.createElement("button"), label = document.createElement("span");
  const left = Math.max(0, x), top = Math.max(0, y);
  box.type = "button";
  box.className = answered.doubtful ? "box doubtful" : "box";
  box.classList.toggle("low", top < 0.06 * size.height);
  box.classList.toggle("right", left > 0.55 * size.width);
  box.style.left = `${(100 * left) / size.width}%`;
  box.style.top = `${(100 * top) / size.height}%`;
  box.style.width = `${(100 * (Math.min(size.width, x + width) - left)) / size.width}%`;
  box.style.height = `${(100 * (Math.min(size.height, y + height) - top)) / size.height}%`;
  box.setAttribute("aria-label", `${title}: ${answered.words}`);
  const short = answered.best.length === 1 ? `${title.split(" ")[1]} ${answered.best[0]}` : title.split(" ")[1];
  label.textContent = answered.doubtful && answered.best.length === 1 ? `${short}?` : short;
  box.append(label);
  return box;
}

function entryOf(face, answered, title, model, image, number, fail) {
  const entry = document.getElementById("face").content.firstElementChild.cloneNode(true);
  entry.querySelector("h3").textContent = `${title}: ${answered.words}`;
  entry.classList.toggle("doubtful", answered.doubtful);
  const reason = entry.querySelector(".reason");
  reason.textContent = face.reason ? `${face.reason[0].toUpperCase()}${face.reason.slice(1)}.` : "";
  reason.hidden = !face.reason;
  entry.querySelector(".unusual").hidden = !face.unusual;
  const bars = answered.ranked.slice(0, model.multilabel ? undefined : BARS);
  entry.querySelector(".bars").replaceChildren(...bars.map((bar) => barOf(...bar, answered.best)));
  if (model.explains && answered.ranked.length) addEvidence(entry, answered, title, model, image, number, fail);
  return entry;
}

function barOf(name, probability, best) {
  const row = document.createElement("li"), parts = ["name", "track", "value"].map((kind) => {
    const part = document.createElement("span");
    part.className = kind;
    return part;
  });
  const fill = document.createElement("span");
  fill.className = "fill";
  fill.style.width = `${100 * probability}%`;
  parts[0].textContent = name;
  parts[1].append(fill);
  parts[2].textContent = percent(probability);
  row.classList.toggle("best", best.includes(name));
  row.append(...parts);
  return row;
}

function addEvidence(entry, answered, title, model, image, number, fail) {
  const form = entry.querySelector("form"), select = form.querySelector("select"), figure = entry.querySelector("figure");
  select.replaceChildren(...model.classes.map((name) => new Option(name, name, false, name === answered.best[0])));
  form.hidden = false;
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const button = form.querySelector("button"), label = select.value, data = new FormData();
    data.append("image", image);
    data.append("label", label);
    if (number !== null) data.append("face", number);
    button.disabled = true;
    try {
      const response = await fetch("/explain", { method: "POST", body: data });
      if (!response.ok) throw new Error((await response.json()).detail);
      const shown = figure.querySelector("img");
      URL.revokeObjectURL(shown.src);
      shown.src = URL.createObjectURL(await response.blob());
      shown.alt = `${title} as the network gets it, with its evidence for ${label}`;
      figure.querySelector("figcaption").textContent = `What the network gets. Bright parts, inside the line, raise its score of “${label}” (Grad-CAM).`;
      figure.hidden = false;
    } catch (error) {
      fail(error.message);
    } finally {
      button.disabled = false;
    }
  });
}
