from rlaif.stages.reinforcement.feed import Feed


def test_a_feed_says_when_its_last_row_has_been_taken():
    rows = Feed([1, 2])
    assert [next(rows), next(rows)] == [1, 2]
    assert not rows.taken.is_set()  # a pool learns that there are no more by asking
    assert next(rows, None) is None and rows.taken.is_set()
