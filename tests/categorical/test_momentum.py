import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from lib.categorical.models import Queue
from lib.training import MovingAverage


@given(st.integers(1, 9), st.lists(st.integers(0, 12), max_size=8))
@settings(max_examples=80, deadline=None)
def test_the_queue_holds_the_newest_rows_whatever_the_batches(size, batches):
    queue, pushed = Queue(size, (2, 3)), []
    for count in batches:
        rows = torch.arange(len(pushed), len(pushed) + count).float()
        pushed += rows.tolist()
        queue.push(rows.view(-1, 1, 1).expand(-1, 2, 3))
        found = sorted(queue.filled()[:, 0, 0].tolist())
        assert found == pushed[-size:]


def test_slots_that_were_never_filled_are_never_shown():
    queue = Queue(4, (2,))
    assert queue.filled().shape == (0, 2)
    queue.push(torch.ones(3, 2))
    assert queue.filled().shape == (3, 2) and queue.filled().all()


def test_the_oldest_rows_leave_first():
    queue = Queue(3, ())
    for value in range(5):
        queue.push(torch.tensor([float(value)]))
    assert queue.filled().tolist() == [3.0, 4.0, 2.0]


def test_the_queue_is_saved_and_restored():
    queue, other = Queue(4, (2,)), Queue(4, (2,))
    queue.push(torch.rand(6, 2))
    other.load_state_dict(queue.state_dict())
    assert torch.equal(other.filled(), queue.filled())
    rows = torch.rand(3, 2)
    queue.push(rows), other.push(rows)
    assert torch.equal(other.filled(), queue.filled())


def test_the_queue_keeps_no_graph():
    queue = Queue(4, (2,))
    queue.push(torch.rand(2, 2, requires_grad=True) * 2)
    assert not queue.filled().requires_grad


def test_the_slow_copy_is_the_moving_average_of_every_weight():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))
    expected = {name: value.clone() for name, value in network.named_parameters()}
    copy = MovingAverage(network, 0.9)
    for _ in range(3):
        with torch.no_grad():
            for value in network.parameters():
                value.add_(torch.randn_like(value))
        copy.update_parameters(network)
        for name, value in network.named_parameters():
            expected[name] = 0.9 * expected[name] + 0.1 * value.detach()
    for name, value in copy.module.named_parameters():
        assert torch.allclose(value, expected[name], atol=1e-6), name
    assert any(not torch.equal(value, dict(network.named_parameters())[name]) for name, value in expected.items())
