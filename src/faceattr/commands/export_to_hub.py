"""`export.push=user/name`: uploads an export to the Hugging Face Hub. Nothing else of faceattr ever sends anything."""

import logging
import re
from pathlib import Path

from faceattr.errors import FaceattrError

log = logging.getLogger(__name__)


def check_push(name: str) -> None:
    """Before any work: the name is one of the Hub's, and there is a token. Raises FaceattrError."""
    from huggingface_hub import get_token

    if not re.fullmatch(r"[\w.-]{1,96}/[\w.-]{1,96}", name, re.ASCII):
        raise FaceattrError(f"export.push={name}: give user/name, the repository on the Hugging Face Hub.")
    if not get_token():
        raise FaceattrError(
            f"export.push={name}: no token of the Hugging Face Hub. `hf auth login` stores one, or set HF_TOKEN."
        )


def push(folder: Path, name: str) -> None:
    """Uploads the folder into the repository `name`, which is made, private, where there is none.

    Raises FaceattrError: no network, or the Hub refuses; the folder stays.
    """
    from huggingface_hub import HfApi

    api = HfApi()
    try:
        url = api.create_repo(name, private=True, exist_ok=True)
        api.upload_folder(repo_id=name, folder_path=folder, commit_message="Exported by faceattr")
    except Exception as error:  # of the network or the Hub, of many kinds
        reason = (str(error).strip() or type(error).__name__).partition("\n")[0][:200]
        raise FaceattrError(f"export.push={name}: not pushed: {reason}. The export is complete: {folder}") from error
    log.info("Pushed: %s", url)
