from faceattr.wording import counted, listed


def test_listed_ends_with_dots_where_there_is_more():
    assert [listed("abc", 3), listed("abc", 2), listed([], 2)] == ["a, b, c", "a, b, …", ""]
    assert listed((n for n in range(9)), 2, separator="; ") == "0; 1; …"


def test_counted_has_one_singular():
    assert [counted(0, "image"), counted(1, "image"), counted(2000, "image")] == ["0 images", "1 image", "2,000 images"]
