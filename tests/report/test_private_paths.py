"""A page that is sent tells nobody where files lie on this machine."""

from pathlib import Path

import pytest

from faceattr.report.private_paths import paths_in, without_absolute_paths


@pytest.fixture
def places(tmp_path, monkeypatch) -> Path:
    """A home directory with a blank in its name, and a working directory elsewhere."""
    home, here = tmp_path / "jo smith", tmp_path / "work"
    for folder in (home, here):
        folder.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.chdir(here)
    return tmp_path


def test_without_absolute_paths_shortens_every_path(places):
    page = (
        f"<p>python train.py data.root={places}/jo smith/faces ckpt={places}/work/outputs/a/best.ckpt</p>"
        "<li>weights: /mnt/joe/models/vgg.pth, root: /srv/joe/data</li>"
        r"<li>C:\Users\joe\x.pth</li><code>[/mnt/joe/a.csv]</code> 'x=/mnt/joe/b'"
        r"<code>ckpt=C:\Users\joe\best.ckpt root=D:/joe/faces [E:\joe\a.csv]</code>"
    )
    assert without_absolute_paths(page) == (
        "<p>python train.py data.root=~/faces ckpt=outputs/a/best.ckpt</p>"
        "<li>weights: …/vgg.pth, root: …/data</li>"
        "<li>…/x.pth</li><code>[…/a.csv]</code> 'x=…/b'"
        "<code>ckpt=…/best.ckpt root=…/faces […/a.csv]</code>"
    )


def test_without_absolute_paths_knows_values_with_blanks(places):
    windows = r"C:\Users\joe bloggs\my data"
    config = f"data:\n  root: /mnt/joe bloggs/my data\n  image_dir: {windows}\n  file: a.csv\nname: x\n"
    assert paths_in(config) == ["/mnt/joe bloggs/my data", windows]
    page = f"<pre>{config}</pre> train data.root=&#39;/mnt/joe bloggs/my data&#39; &#34;data.image_dir={windows}&#34;"
    assert "joe" not in without_absolute_paths(page, paths_in(config))


@pytest.mark.parametrize(
    "text",
    [
        "an accuracy of 3/4, images/s and/or 1 / 2",
        '<a href="checkpoints/best.ckpt">x</a><br/></p>',
        "https://github.com/owner/name/blob",
        "src=data:image/webp;base64,/9j/4AAQSkZJRgABAQAAAQABAAD/2wBDAAgGBgcGBQgHBwcJCQgKDBQ/abc/def",
        "outputs/a/best.ckpt ~/b/c.csv",
    ],
)
def test_without_absolute_paths_leaves_other_text(places, text):
    assert without_absolute_paths(text) == text
