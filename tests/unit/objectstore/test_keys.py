"""The key file: what it holds, who may read it, and what a wrong one is told."""

import base64
import stat
from pathlib import Path

import pytest

from membridge.errors import EncryptionKeyError, FileAccessError
from membridge.objectstore.encryption.keys import MOST_SALTS, NO_SALT, Key, KeySource, new_key, read_file, write_file


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "folder" / "sealing.keys"


def test_keys_come_back_in_their_order_and_others_cannot_read_them(path: Path) -> None:
    keys = (new_key(), new_key(), new_key())

    write_file(path, keys)

    assert read_file(path) == keys
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_a_line_needs_no_id_and_comments_and_empty_lines_are_nothing(path: Path) -> None:
    key = new_key()
    path.parent.mkdir()
    path.touch(mode=0o600)
    path.write_text(f"# note\n\n{base64.b64encode(key.secret).decode()}\n")

    assert read_file(path) == (key,)


def test_a_key_is_shown_by_its_id_alone(path: Path) -> None:
    key = new_key()

    assert repr(key) == f"Key({key.id})"
    assert key.secret.hex() not in repr([key])
    assert len({new_key().id for _ in range(50)}) == 50


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644, 0o620])
def test_a_file_that_others_may_use_is_refused(path: Path, mode: int) -> None:
    write_file(path, [new_key()])
    path.chmod(mode)

    with pytest.raises(EncryptionKeyError, match="other users have access") as caught:
        read_file(path)
    assert caught.value.remedy == f"run `chmod 600 {path}`"


@pytest.mark.parametrize(
    "text",
    ["", "# nothing\n", "nonsense\n", base64.b64encode(bytes(31)).decode(), "0" * 16 + " " + "A" * 43 + "=", "\xff",
     "a b c\n", "A" * 20_000],
)  # fmt: skip
def test_a_file_without_a_key_or_with_a_wrong_line_is_refused(path: Path, text: str) -> None:
    path.parent.mkdir()
    path.touch(mode=0o600)
    path.write_text(text, encoding="latin-1")

    with pytest.raises(EncryptionKeyError) as caught:
        read_file(path)
    assert str(path) in caught.value.message
    assert "\n" not in caught.value.message


def test_a_missing_file_says_where_to_get_one(path: Path) -> None:
    with pytest.raises(EncryptionKeyError, match="No such file") as caught:
        read_file(path)
    assert "MEMBRIDGE_ENCRYPTION_KEY_FILE" in caught.value.remedy


def test_a_file_that_cannot_be_written_leaves_the_old_one(path: Path) -> None:
    path.mkdir(parents=True)

    with pytest.raises(FileAccessError, match="Is a directory"):
        write_file(path, [new_key()])
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_a_passphrase_makes_one_key_of_each_salt(path: Path) -> None:
    source = KeySource(passphrase="correct horse battery")
    (one,), (again,) = source.load(b"a" * 16), source.load(b"a" * 16)
    (other,) = source.load(b"b" * 16)

    assert one == again == KeySource(passphrase="correct horse battery").load(b"a" * 16)[0]
    assert len({one.id, other.id, KeySource(passphrase="correct horse batterz").load(b"a" * 16)[0].id}) == 3
    assert (one.salt, one.secret != other.secret) == (b"a" * 16, True)


def test_a_store_full_of_salts_does_not_keep_a_node_busy() -> None:
    source = KeySource(passphrase="correct horse battery")
    made = [source.from_passphrase(bytes([number]) * 16) for number in range(1, MOST_SALTS + 3)]

    assert [key is not None for key in made] == [True] * MOST_SALTS + [False] * 2
    assert source.from_passphrase(NO_SALT) is None


def test_beside_a_key_file_a_passphrase_only_opens(path: Path) -> None:
    first, second = new_key(), new_key()
    write_file(path, [first, second])

    keys = KeySource(file=path, passphrase="correct horse battery").load(b"a" * 16)

    assert keys[:2] == (first, second)
    assert keys[2:] == KeySource(passphrase="correct horse battery").load(b"a" * 16)
    assert KeySource(file=path).load(b"a" * 16) == (first, second)
    assert isinstance(keys[0], Key)
