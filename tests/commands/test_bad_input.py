"""Bad input: one message that names what is wrong and what would be right, exit code 1, no traceback, nothing left."""

import shutil
from pathlib import Path

import pandas as pd
import pytest
import torch
from programs import OFFLINE, S0_MAP, TINY, inside, quick, tiny_run

from faceattr.data.sources import sample
from faceattr.errors import FaceattrError
from faceattr.training import checkpoint_format


@pytest.fixture(scope="session")
def files(tmp_path_factory) -> Path:
    """Data sets and checkpoints, sound and broken; nothing in it is changed by a test."""
    root = tmp_path_factory.mktemp("files")
    for layout in ("csv", "imfdb", "celeba", "folders"):
        sample.write(layout, root / layout, n=40, image_size=32)
    (root / "empty").mkdir()
    _break_images(shutil.copytree(root / "csv", root / "corrupt"))
    _break_table(shutil.copytree(root / "csv", root / "problems"))
    _break_checkpoint(tiny_run(root / "run", "trainer.max_epochs=1"), root)
    return root


def _break_images(root: Path) -> None:
    (root / "images" / "000003.jpg").write_bytes(b"no image at all")
    cut = root / "images" / "000007.jpg"
    cut.write_bytes(cut.read_bytes()[:400])
    (root / "images" / "000009.jpg").write_bytes(b"")


def _break_table(root: Path) -> None:
    table = pd.read_csv(root / "results.csv")
    table.loc[0, "Filename"] = "absent.jpg"
    table.loc[1, "Gender"] = 7
    table.loc[2, "Filename"] = table.loc[3, "Filename"]
    table.loc[4, "Filename"] = "../../outside.jpg"
    table.to_csv(root / "results.csv", index=False)


def _break_checkpoint(run: Path, root: Path) -> None:
    best = run / "checkpoints" / "best.ckpt"
    whole = best.read_bytes()
    (root / "truncated.ckpt").write_bytes(whole[: len(whole) // 2])
    (root / "text.ckpt").write_text("not a checkpoint\n")
    content = torch.load(best, weights_only=True)
    torch.save({"state_dict": content["state_dict"]}, root / "foreign.ckpt")
    torch.save({**content, "faceattr": {**content["faceattr"], "format": 0, "version": "0.0.1"}}, root / "old.ckpt")
    state = dict(content["state_dict"])
    first = next(name for name, tensor in state.items() if tensor.ndim == 4)
    state[first] = torch.zeros(8, 3, 5, 5)
    torch.save(state, root / "shape.pth")
    torch.save({"nothing.weight": torch.zeros(3)}, root / "alien.pth")


def check(ended, said: list[str], lines: int = 3) -> None:
    """The one message on stderr."""
    assert ended.code == 1, f"{ended}"
    assert ended.err.startswith("Error: ") and ended.err.count("Error: ") == 1, ended.err
    assert "Traceback" not in ended.err + ended.out and ended.err.count("\n") <= lines, ended.err
    missing = [part for part in said if part not in ended.err]
    assert not missing, f"{missing} not in: {ended.err}"


def filled(arguments: str, files: Path) -> list[str]:
    return [S0_MAP if argument == "MAP" else argument.replace("FILES", str(files)) for argument in arguments.split()]


# fmt: off
TRAIN = {
    # the command line
    "trainer.monitor=val_f2 data=csv data.root=/none/such": ["trainer.monitor=val_f2: no such metric. Did you mean val_f1?"],
    "model=vgg61": ["model=vgg61", "no such option", "vgg16", "cnn7"],
    "experiment=none_such": ["experiment=none_such", "no such option"],
    "hparams_search=grid": ["hparams_search=grid", "no such option", "optuna"],
    "hydra/launcher=slurm": ["hydra/launcher=slurm", "no such option", "basic", "extra `sweeps` has optuna, joblib and ray"],
    "--epochs": ["unrecognized arguments: --epochs", "trainer.max_epochs=3"],
    "modle=vgg16": ["modle", "Did you mean model?"],
    "data.rooot=here": ["data.rooot", "Did you mean data.root?"],
    "optim.momentum=0.9": ["optim.momentum", "weight_decay"],
    "trainer.patienc=3": ["trainer.patienc", "Did you mean trainer.patience?"],
    "finetune.train_form=head": ["finetune.train_form", "Did you mean finetune.train_from?"],
    "+epochs=3": ["epochs", "no such key"],
    "+trainer.epochs=3": ["epochs", "max_epochs"],
    "+data.foo=1": ["data.foo", "batch_size"],
    "trainer.max_epochs=few": ["trainer.max_epochs=few: must be a whole number."],
    "data.batch_size=few": ["data.batch_size=few: must be a whole number."],
    "seed=-1": ["seed=-1", "from 0 to"],
    "seed=[": ["seed=[: cannot be read", "A list is [a,b]"],
    "data.label_map={0:": ["data.label_map={0:: cannot be read: no }", "in quotes it is one: 'data.label_map={0: …}'"],
    "model.weights=FILES/text.ckpt data=csv data.root=/none/such": ["model.weights=", "text.ckpt cannot be read", "Give a file of"],
    "seed='a": ["seed='a: cannot be read", "As text, in a shell: "],
    "vgg16": ["vgg16: give key=value"],
    "data.classes=young,old": ['data.classes=young,old: several values. As a list: "data.classes=[young,old]".\n'],
    "optim.lr=0.1,0.2": ["optim.lr=0.1,0.2: several values", "add -m"],
    "data.n=60 -m model=cnn,vgg": ["model=vgg: no such option", "vgg16"],
    "model.image_size=64": ["model.image_size=64: must be a list, such as [64,64]."],
    "model.image_size=[64]": ["model.image_size=[64]", "[height, width]"],
    "model.image_size=[4,4]": ["model.image_size=[4, 4]", "small"],
    "trainer=gpu": ["cuda", "trainer=cpu"],
    "hydra.run.dir=/dev/null/run": ["/dev/null"],
    # data
    "data=csv": ["data.root"],
    "data=csv data.root=/none/such": ["data.root", "/none/such", "results.csv"],
    "data=csv data.root=FILES/empty": ["data.file", "empty/results.csv"],
    "data=csv data.root=FILES/csv data.label_column=Sex": ["data.label_column=Sex", "Filename, Gender, Age"],
    "data=csv data.root=FILES/csv data.image_column=File": ["data.image_column=File", "Filename, Gender, Age"],
    "data=csv data.root=FILES/csv data.image_dir=pics": ["data.image_dir", "csv/pics"],
    "data=csv data.root=FILES/csv": ["column 'Gender' has numbers", "0 (", "data.label_map={0: male, 1: female}"],
    "data=csv data.root=FILES/csv data.classes=[woman,man]": ["'data.label_map={0: woman, 1: man}'"],
    "data=csv data.root=FILES/csv data.label_column=Age data.bins=[30]": ["data.bins=[30]", "2 classes"],
    "data=csv MAP data.root=FILES/csv data.split=identity": ["data.split=identity", "group"],
    "data=folders data.root=FILES/empty": ["data.root", "<class>/"],
    "data=folders data.root=FILES/folders data.class_map={man:male}": ["data.class_map", "man", "Female, Male"],
    "data=celeba data.root=FILES/csv": ["list_attr_celeba.txt", "img_align_celeba"],
    "data=celeba data.root=FILES/celeba data.attribute=Beard": ["data.attribute=Beard", "No_Beard"],
    "data=imfdb data.root=FILES/csv": ["data.file", "train.csv", "results.csv"],
    "data=imfdb data.root=FILES/imfdb loss=bce": ["loss=bce", "young, middle, old", "loss=ce"],
    "data.fractions.train=0.9": ["data.fractions", "sum to 1"],
    "data.attribute=height": ["data.attribute", "gender, age"],
    "data.n=3": ["empty split", "val"],
    "data=csv MAP data.root=FILES/corrupt": ["3 of 40", "000003.jpg", "000007.jpg", "000009.jpg", "data.on_bad_image=skip"],
    # model and finetune
    "finetune.train_from=block9": ["finetune.train_from", "block9", "block1, block2, block3, block4, head"],
    "finetune.train_from=[[1,head]]": ["finetune.train_from", "increase from 0"],
    "model=vgg16 model.pretrained=true": ["model.pretrained=true", "model.weights=FILE"],
    "model=timm model.pretrained=true": ["model.pretrained=true", "model.weights=FILE"],
    "model.pretrained=true": ["model.pretrained=true", "model.weights=FILE"],
    "model=timm model.name=resnet999": ["resnet999"],
    "model.weights=/none/such.pth": ["model.weights=/none/such.pth"],
    "model.weights=FILES/shape.pth": ["shape.pth", "[8, 3, 5, 5]", "[32, 3, 3, 3]"],
    "model.weights=FILES/alien.pth": ["alien.pth", "nothing.weight"],
    "model.weights=FILES/truncated.ckpt": ["model.weights=", "truncated.ckpt"],
    # checkpoints
    "ckpt=/none/such.ckpt": ["ckpt=/none/such.ckpt", "no such file"],
    "ckpt=FILES/truncated.ckpt": ["truncated.ckpt", "truncated"],
    "ckpt=FILES/old.ckpt": ["old.ckpt", "format 0", "0.0.1", "formats 1 to"],
    "ckpt=FILES/foreign.ckpt": ["foreign.ckpt", "not a faceattr checkpoint", "model.weights="],
    "-m ckpt=FILES/run/checkpoints/last.ckpt seed=0,1": ["ckpt", "swept", "-m"],
}
EVALUATE = {
    "": ["ckpt", "python evaluate.py ckpt="],
    "ckpt=": ["ckpt", "python evaluate.py ckpt="],
    "--ckpt=run/a.ckpt": ["key=value", "python evaluate.py ckpt=run/a.ckpt"],
    "run/best.ckpt": ["key=value", "python evaluate.py ckpt=run/best.ckpt"],
    "ckpt=FILES/text.ckpt": ["text.ckpt", "not a PyTorch checkpoint"],
    "ckpt=FILES/old.ckpt": ["old.ckpt", "format 0", "train again"],
    "ckpt=FILES/run/checkpoints/best.ckpt splt=val": ["splt", "Did you mean split?"],
    "ckpt=FILES/run/checkpoints/best.ckpt split=dev": ["split=dev", "train, val, test"],
    "ckpt=FILES/run/checkpoints/best.ckpt data=csv": ["data.root"],
    "ckpt=FILES/run/checkpoints/best.ckpt data=csv MAP data.root=FILES/csv split=test": ["split=test", "split=all"],
    "ckpt=FILES/run/checkpoints/best.ckpt data=imfdb data.root=FILES/imfdb": ["female, male", "young, middle, old"],
    "ckpt=FILES/run/checkpoints/best.ckpt data=csv MAP data.root=FILES/corrupt": ["3 of 40", "data.on_bad_image=skip"],
}
PREDICT = {
    "input=photo.jpg": ["ckpt", "python predict.py ckpt="],
    "ckpt=FILES/run/checkpoints/best.ckpt": ["input", "folder", "glob"],
    "ckpt=FILES/run/checkpoints/best.ckpt input=${x}.png": ["In input=${x}.png, ${…} is a reference", "'input='"],
    "ckpt=FILES/run/checkpoints/best.ckpt input=a.jpg crops=maybe": ["crops=maybe: must be true or false."],
    "ckpt=FILES/run/checkpoints/best.ckpt input=/none/such.jpg": ["input=/none/such.jpg", "no such file"],
    "ckpt=FILES/run/checkpoints/best.ckpt input=FILES/empty": ["input=", "empty", ".jpg"],
    "ckpt=FILES/run/checkpoints/best.ckpt input=FILES/csv/*.png": ["input=", "*.png"],
    "ckpt=FILES/run/checkpoints/best.ckpt input=FILES/csv batch_size=0": ["batch_size=0", "from 1 to"],
    "ckpt=FILES/truncated.ckpt input=FILES/csv/images": ["truncated.ckpt", "truncated"],
}
# fmt: on
CASES = [
    (program, *case)
    for program, cases in (("train", TRAIN), ("evaluate", EVALUATE), ("predict", PREDICT))
    for case in cases.items()
]  # fmt: skip


@pytest.mark.parametrize(("program", "arguments", "said"), CASES, ids=[f"{p} {a}".strip() for p, a, _ in CASES])
def test_one_message_and_nothing_left(files, tmp_path, program, arguments, said):
    tiny = (
        [o for o in TINY if o.split("=")[0] not in arguments] if program == "train" and "ckpt=" not in arguments else []
    )
    if "data=" in arguments or "data.n" in arguments:
        tiny = [override for override in tiny if not override.startswith("data.")]
    ended = inside(program, *tiny, *filled(arguments, files), cwd=tmp_path, TORCH_HOME=str(files / "torch"), **OFFLINE)
    check(ended, said)
    assert not list(tmp_path.iterdir()), "something was left behind"


def test_the_traceback_is_shown_on_request(tmp_path):
    ended = quick("train", "finetune.train_from=block9", *TINY, cwd=tmp_path, HYDRA_FULL_ERROR="1")
    assert ended.code == 1 and "Traceback" in ended.err and "in _index" in ended.err
    assert not list(tmp_path.iterdir())


def test_all_problems_of_a_table_at_once(files, tmp_path):
    ended = inside("train", "data=csv", S0_MAP, f"data.root={files / 'problems'}", cwd=tmp_path)
    said = ["path that leaves data.root (1): ", "missing file (1): images/absent.jpg", "images/000002.jpg: 7"]
    check(ended, [*said, "duplicate path (1): images/000004.jpg"], lines=6)
    assert not list(tmp_path.iterdir())


def test_a_folder_of_log_files_is_not_taken_for_an_empty_run(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "precious.log").write_text("hours of work\n")
    ended = inside("train", "data=csv", "hydra.run.dir=mine", cwd=tmp_path)
    check(ended, ["data.root"])
    assert (tmp_path / "mine" / "precious.log").read_text() == "hours of work\n"


def _checkpoints(run: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (run / "checkpoints").iterdir()}


def test_a_disk_that_fills_keeps_the_previous_checkpoints(tmp_path):
    """A limit on the size of a file fails a write as a full disk does."""
    run = tiny_run(tmp_path / "run", "trainer.max_epochs=1", "optim.schedule=constant", "trainer.patience=null")
    before, last = _checkpoints(run), run / "checkpoints" / "last.ckpt"
    go_on = [f"ckpt={last}", "trainer.max_epochs=2"]
    ended = quick("train", *go_on, cwd=tmp_path, largest_file=len(before["last.ckpt"]) - 1000)
    check(ended, ["Cannot write", ".ckpt: File too large", "is whole"])
    assert _checkpoints(run) == before, "a previous checkpoint was touched, or a part of one left"
    assert quick("train", *go_on, cwd=tmp_path).code == 0
    assert torch.load(last, weights_only=True)["epoch"] == 1


def test_a_disk_that_is_full_from_the_start(tmp_path):
    ended = quick(
        "train", *TINY, "data.pack=off", "data.workers=0", "hydra.run.dir=run", cwd=tmp_path, largest_file=10_000
    )
    check(ended, ["Cannot write", "last.ckpt: File too large", "There was none before"])
    assert set(_checkpoints(tmp_path / "run")) == {"training_hashes.npy"}


@pytest.mark.slow
def test_compiling_without_a_compiler_is_one_clear_message(tmp_path):
    env = {"PATH": str(tmp_path), "TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "inductor")}
    ended = quick("train", *TINY, "trainer.compile=true", "hydra.run.dir=run", cwd=tmp_path, **env)
    check(ended, ["trainer.compile=true fails"])


def test_a_checkpoint_is_never_written_half(tmp_path):
    target = tmp_path / "last.ckpt"
    checkpoint_format.AtomicCheckpointIO().save_checkpoint({"x": torch.ones(3)}, target)
    with pytest.raises(Exception, match="lambda"):
        checkpoint_format.AtomicCheckpointIO().save_checkpoint({"x": torch.zeros(3), "y": lambda: 0}, target)
    assert torch.equal(torch.load(target, weights_only=True)["x"], torch.ones(3))
    assert [path.name for path in tmp_path.iterdir()] == ["last.ckpt"]


def test_what_a_checkpoint_is_not(files):
    for name in ("truncated.ckpt", "text.ckpt", "foreign.ckpt", "old.ckpt", "csv", "none.ckpt"):
        with pytest.raises(FaceattrError, match=f"ckpt=.*{name}"):
            checkpoint_format.read(files / name)
