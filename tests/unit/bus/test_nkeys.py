"""nkeys as NATS defines them: text that others wrote is read, signatures that others can check are made."""

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nacl.signing import VerifyKey

from membridge.bus import nkeys
from membridge.bus.nkeys import UserKey

#: Made by the package `nkeys` 0.2.1, which the Go tools agree with.
SEED = b"SUAAAAICAMCAKBQHBAEQUCYMBUHA6EARCIJRIFIWC4MBSGQ3DQOR4H776Y"
PUBLIC = "UAB2CB576PHBBPQ5ODORRZ2LYCMWPZGWGCN2KDK7DXOIMZASKUY3RLKK"
SIGNED = b"+HTq4d6DDHVNb8MsTRAZtSIa0vXA/yuZblwTA7JT5wYzmKBxJ2wpYfjHh7hcptZlidbVw/6ZLyubjm/yDk+OCQ=="


def test_a_seed_and_its_public_key_are_those_of_nats() -> None:
    key = nkeys.from_seed(SEED + b"\n")

    assert (key.secret, key.seed, key.public) == (bytes(range(32)), SEED.decode(), PUBLIC)
    assert key.sign(b"nonce") == SIGNED
    assert str(key.secret) not in repr(key)


@given(st.binary(min_size=32, max_size=32), st.binary(max_size=64))
def test_every_key_survives_its_text_and_signs(secret: bytes, nonce: bytes) -> None:
    key = nkeys.from_seed(UserKey(secret).seed.encode())

    assert key.secret == secret
    assert (key.seed[:2], key.public[0]) == ("SU", "U")
    raw = base64.b32decode(key.public)
    VerifyKey(raw[1:33]).verify(nonce, base64.b64decode(key.sign(nonce)))


@given(st.integers(0, len(SEED) - 1), st.sampled_from(b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"))
def test_a_wrong_letter_is_found(place: int, letter: int) -> None:
    damaged = SEED[:place] + bytes([letter]) + SEED[place + 1 :]
    if damaged == SEED:
        return

    with pytest.raises(ValueError, match=r"cut or has a wrong letter|not the seed"):
        nkeys.from_seed(damaged)


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"SU",
        SEED[:-1],
        SEED + b"A",
        SEED.lower(),
        b"\xff\xfe",
        PUBLIC.encode(),
        # The seed of an account.
        b"SAAAAAICAMCAKBQHBAEQUCYMBUHA6EARCIJRIFIWC4MBSGQ3DQOR4HYMHI",
    ],
)
def test_all_but_a_users_seed_is_refused(text: bytes) -> None:
    with pytest.raises(ValueError, match="it is"):
        nkeys.from_seed(text)


def test_a_credentials_file_has_a_jwt_and_a_seed() -> None:
    text = b"-----BEGIN NATS USER JWT-----\nabc.def\n------END NATS USER JWT------\n\n*** comment ***\n\n"
    seed = b"-----BEGIN USER NKEY SEED-----\r\n" + SEED + b"\r\n------END USER NKEY SEED------\n"

    assert nkeys.of_credentials(text + seed) == (b"abc.def", UserKey(bytes(range(32))))
    for lacking in (text, seed, text + seed.replace(SEED, b""), b""):
        with pytest.raises(ValueError, match="JWT or seed"):
            nkeys.of_credentials(lacking)
