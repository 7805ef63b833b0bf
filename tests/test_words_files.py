"""Files of captions: our CSV, WIT's tables, the competition's lists and submissions; what is wrong is named."""

from __future__ import annotations

import gzip

import numpy as np
import pytest

from isc.errors import InputError
from isc.words.caption_files import (
    Captions,
    caption_of,
    read_caption_list,
    read_captions,
    read_images,
    read_wit,
    title_and_description,
)
from isc.words.submission import read_submission, write_submission

WIT = "language\tpage_url\timage_url\tpage_title\tcaption_reference_description\n"
SUBMISSION = "id,caption_title_and_reference_description\n"


def written(path, text):
    path.write_text(text, encoding="utf-8")
    return path


def test_captions_are_read_by_language_and_split(tmp_path):
    path = written(
        tmp_path / "captions.csv",
        "photo_id,language,split,caption\n"
        'a,en,train,A dog .\na,zh,train,一只狗。\na,en,train,"Dog, wet"\nb,en,dev,Cat\n',
    )
    captions = read_captions(path)
    assert len(captions) == 4
    assert captions.of(language="en", split="train").by_picture() == {"a": ["A dog .", "Dog, wet"]}
    assert captions.of(language="zh").texts.tolist() == ["一只狗。"]
    assert captions.of(split="dev").pictures.tolist() == ["b"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("photo_id,language,split,caption\na,en,train,  \n", "line 2: caption is empty"),
        ("photo_id,language,split,caption\na,en,train,x\n,en,train,x\n", "line 3: photo_id is empty"),
        ("photo_id,language,split,caption\na,en,train,x\na,en,dev,y\n", "line 3: 'a' is in train and dev"),
        ("photo_id,language,split,caption\na,en,train\n", "line 2: 3 fields; expected 4"),
        ("photo_id,caption\na,x\n", "line 1: no column language"),
        ("photo_id,language,split,caption\n", "holds no captions"),
        ('photo_id,language,split,caption\na,en,train,"x\n', "not a table"),
    ],
)
def test_bad_captions_are_refused_by_line(tmp_path, text, message):
    path = written(tmp_path / "captions.csv", text)
    with pytest.raises(InputError, match=message):
        read_captions(path)


def test_text_that_is_not_utf8_is_refused(tmp_path):
    path = tmp_path / "captions.csv"
    path.write_bytes(b"photo_id,language,split,caption\na,en,train,\xff\xfe\n")
    with pytest.raises(InputError, match="not UTF-8"):
        read_captions(path)
    with pytest.raises(InputError, match="cannot be read"):
        read_captions(tmp_path / "absent.csv")


def test_values_of_captions_are_checked():
    with pytest.raises(InputError, match="row 1: the caption of 'b' is empty"):
        Captions(["a", "b"], ["en", "en"], ["train", "train"], ["x", " "])
    with pytest.raises(InputError, match="columns of"):
        Captions(["a"], ["en", "en"], ["train"], ["x"])


@pytest.mark.parametrize("packed", [False, True])
def test_wit_is_read_as_it_is_published(tmp_path, packed):
    long = "x" * 200_000  # a page's context is longer than csv's usual limit
    lines = [["en", "http://p", "http://i/A_dog.jpg", "Dog", 'A "dog'], ["de", long, "http://i/b.jpg", "Hund", ""]]
    text = WIT + "".join("\t".join(line) + "\n" for line in lines)
    path = tmp_path / ("wit.tsv.gz" if packed else "wit.tsv")
    path.write_bytes(gzip.compress(text.encode()) if packed else text.encode())
    first, second = read_wit(path)  # a quote inside a field is text
    assert (first.caption, second.caption) == ('Dog [SEP] A "dog', "Hund [SEP]")
    assert (first.language, second.url) == ("en", "http://i/b.jpg")


def test_wit_without_a_title_is_refused_by_line(tmp_path):
    path = written(tmp_path / "wit.tsv", WIT + "en\tp\tu\tDog\td\nen\tp\tu\t\td\n")
    with pytest.raises(InputError, match="line 3: page_title is empty"):
        list(read_wit(path))
    broken = tmp_path / "broken.tsv.gz"
    broken.write_bytes(gzip.compress((WIT * 50).encode())[:-20])
    with pytest.raises(InputError, match="not a table"):
        list(read_wit(broken))


def test_title_and_description_come_back():
    assert title_and_description(caption_of(" Dog ", "A dog. ")) == ("Dog", "A dog.")
    assert title_and_description("Dog [SEP]") == ("Dog", "")
    assert title_and_description("Dog") == ("Dog", "")


def test_the_competitions_lists_are_read(tmp_path):
    images = written(tmp_path / "test.tsv", "id\timage_url\n0\thttp://i/a.jpg\n1\thttp://i/b.jpg\n")
    assert read_images(images) == {"0": "http://i/a.jpg", "1": "http://i/b.jpg"}
    twice = written(tmp_path / "twice.tsv", "id\timage_url\n0\ta\n0\tb\n")
    with pytest.raises(InputError, match="line 3: id '0' occurs twice"):
        read_images(twice)
    texts = written(
        tmp_path / "list.csv", 'caption_title_and_reference_description\nDog [SEP] x\n"A, b [SEP]"\nDog [SEP] x\n'
    )
    assert read_caption_list(texts) == ["Dog [SEP] x", "A, b [SEP]"]


def test_a_submission_comes_back_as_it_was_written(tmp_path):
    found = {"0": ["b, c", 'say "x"', "a"], "1": ["a"]}
    write_submission(tmp_path / "s.csv", found)
    assert read_submission(tmp_path / "s.csv", ids=["0", "1"], texts=["a", "b, c", 'say "x"']) == found


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("0,a\n0,b\n0,c\n0,d\n0,e\n0,f\n", "line 7: id '0': row 6 of this id; expected at most 5"),
        ("0,a\n1,z\n", "line 3: id '1': 'z' is not among the 6 captions"),
        ("0,a\n7,b\n", "line 3: id '7' is not among the 2 pictures"),
        ("0,a\n0,a\n", "line 3: id '0': 'a' was already given"),
        ("0,a\n", "id '1' has no caption"),
        ("0,a\n1,\n", "line 3: caption_title_and_reference_description is empty"),
    ],
)
def test_bad_submissions_are_refused_by_line_and_id(tmp_path, lines, message):
    path = written(tmp_path / "s.csv", SUBMISSION + lines)
    with pytest.raises(InputError, match=message):
        read_submission(path, ids=["0", "1"], texts=list("abcdef"))


def test_a_sixth_caption_is_not_written(tmp_path):
    with pytest.raises(InputError, match="id '0': 6 captions"):
        write_submission(tmp_path / "s.csv", {"0": list("abcdef")})
    with pytest.raises(InputError, match="occurs twice"):
        write_submission(tmp_path / "s.csv", {"0": ["a", "a"]})
    assert not list(tmp_path.iterdir())


def test_rows_can_be_taken():
    captions = Captions(["a", "b"], ["en", "de"], ["train", "dev"], ["x", "y"])
    assert captions.take(np.array([1])).texts.tolist() == ["y"]
