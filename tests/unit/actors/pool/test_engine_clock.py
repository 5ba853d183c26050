from actors.pool.engine_clock import EngineClock


def test_engines_that_serve_at_the_same_time_add_up():
    clock = EngineClock()
    assert clock.seconds(100.0) == 0
    clock.set(1, 100.0)
    clock.set(3, 110.0)  # 1 x 10 s
    clock.set(0, 115.0)  # 3 x 5 s
    assert clock.seconds(500.0) == 25
    clock.set(2, 600.0)
    assert clock.seconds(601.0) == 27
