"""Text that no file can hold."""

from hypothesis import given
from hypothesis import strategies as st

from ssl_backbones.report.wording import encodable


def test_lone_surrogates_become_their_escapes():
    assert encodable("a\udc80b\ud83d") == "a\\udc80b\\ud83d"


@given(st.text(st.characters(exclude_categories=())))
def test_all_text_can_be_encoded_and_what_can_be_is_kept(text):
    encodable(text).encode()
    try:
        text.encode()
    except UnicodeEncodeError:
        assert encodable(text) != text
    else:
        assert encodable(text) == text
