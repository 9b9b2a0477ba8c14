from tuning.config import Progress
from tuning.curve import Curve, read


class Clock:
    now = 1000.0

    def __call__(self):
        self.now += 2
        return self.now


def progress(step, loss=None, **more):
    return Progress(phase="train", percent=50, step=step, max_steps=9, loss=loss, **more)


def steps(curve, first, last, **more):
    for step in range(first, last + 1):
        curve.add(progress(step, 10 - step, tokens=100 * (step - first + 1), **more))


def test_a_row_has_what_a_step_said(tmp_path):
    curve = Curve(Clock())
    curve.add(
        progress(
            1, 2.5, epoch=0.5, learning_rate=2e-4, grad_norm=0.7, tokens=90, supervised_tokens=40, eta_seconds=7,
            tokens_per_second=45.0, gpu_memory_gib=7.9,
        )
    )  # fmt: skip
    curve.write(tmp_path / "m")
    assert read(tmp_path / "m") == curve.rows
    assert curve.rows[0].model_dump(exclude_none=True) == {
        "t": 1002.0, "attempt": 1, "step": 1, "max_steps": 9, "epoch": 0.5, "loss": 2.5, "lr": 2e-4, "grad_norm": 0.7,
        "tokens": 90, "supervised_tokens": 40, "tok_s": 45.0, "mem_gb": 7.9, "eta_s": 7,
    }  # fmt: skip


def test_the_loss_on_rows_held_out_joins_its_step():
    curve = Curve()
    steps(curve, 1, 3)
    curve.add(progress(3, eval_loss=6.5))
    assert [(row.step, row.loss, row.eval_loss) for row in curve.rows] == [(1, 9, None), (2, 8, None), (3, 7, 6.5)]


def test_phases_without_steps_leave_no_row():
    curve = Curve()
    curve.add(Progress(phase="push", percent=95, loss=1.0))
    curve.add(progress(3))
    assert curve.rows == []


def test_a_resumed_attempt_goes_on_from_its_checkpoint(tmp_path):
    earlier = Curve(Clock())
    steps(earlier, 1, 4)
    earlier.write(tmp_path / "m")
    steps(earlier, 5, 6)  # and then the node was gone

    curve = Curve(Clock())
    curve.load(tmp_path / "m")
    curve.resume(4, [9, 8, 7, 6])
    steps(curve, 5, 9)
    assert [(row.step, row.attempt) for row in curve.rows] == [(at, 1 if at < 5 else 2) for at in range(1, 10)]
    assert curve.rows[-1].tokens == 900
    assert curve.seconds == 3 * 2 + 5 * 2
    assert curve.resumed_from == [4]


def test_a_checkpoint_without_rows_gives_its_losses():
    curve = Curve()
    curve.resume(2, [5.0, 4.0])
    curve.add(progress(3, 3.0))
    assert [(row.step, row.loss, row.attempt) for row in curve.rows] == [(1, 5.0, 1), (2, 4.0, 1), (3, 3.0, 2)]


def test_the_last_word_on_a_step_counts_and_torn_lines_do_not(tmp_path):
    file = tmp_path / "m"
    rows = ['{"t":1,"attempt":1,"step":1,"loss":3}', '{"t":1,"attempt":1,"step":2,"loss":2}']
    file.write_text("\n".join([*rows, '{"t":2,"attempt":2,"step":2,"loss":1}', "\x00nonsense", '{"t":3,"attem']))
    assert [(row.step, row.loss, row.attempt) for row in read(file)] == [(1, 3, 1), (2, 1, 2)]
