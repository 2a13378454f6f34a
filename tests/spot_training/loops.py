"""Loops as people write them, and what is to be found in each: `FAULTS` hold one or more, `GOOD` none.

Each is the end of a script that begins with `BEFORE`. The names found are compared, with their kind.
"""

from __future__ import annotations

BEFORE = """
import copy, itertools, math, random, time
from collections import defaultdict, deque
from contextlib import nullcontext, suppress
from dataclasses import dataclass
import numpy as np, torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

N = 5
model = nn.Linear(4, 2)
optimizer = torch.optim.AdamW(model.parameters())
scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, N)
dataset = TensorDataset(torch.randn(16, 4))

class Loader:  # one that can be tracked
    def __init__(self): self.at = 0
    def state_dict(self): return {"at": self.at}
    def load_state_dict(self, state): self.at = state["at"]
    def next_batch(self): return torch.randn(2, 4)
    def forever(self):
        while True: yield self.next_batch()
    def __iter__(self): return itertools.islice(self.forever(), 8)
    def __len__(self): return 8

loader = Loader()
plain = DataLoader(dataset, batch_size=2, shuffle=True)
train = dict(model=model, optimizer=optimizer, scheduler=scheduler, loader=loader)
def loss_of(x): return model(x).square().mean()
def update(loss):
    optimizer.zero_grad(); loss.backward(); optimizer.step(); scheduler.step()
def evaluate(): return 1.0
"""

FAULTS: dict[str, tuple[str, set[str]]] = {
    "best": ("""
best = math.inf
session.track(**train)
for step in session.steps(N):
    update(loss_of(loader.next_batch()))
    if (val := evaluate()) < best:
        best = val
""", {"carried best"}),
    "best and patience in a function": ("""
def main():
    best, patience = math.inf, 0
    session.track(**train)
    for step in session.steps(N):
        update(loss_of(loader.next_batch()))
        val = evaluate()
        if val < best:
            best, patience = val, 0
        else:
            patience += 1
            if patience > 3:
                break
main()
""", {"carried best", "carried patience"}),
    "running mean": ("""
session.track(**train)
running = 0.0
for step in session.steps(N):
    loss = loss_of(loader.next_batch())
    update(loss)
    running = 0.9 * running + 0.1 * loss.item()
    session.log(loss=running)
""", {"carried running"}),
    "running sum that is reset now and then": ("""
session.track(**train)
total = 0.0
for step in session.steps(N):
    loss = loss_of(loader.next_batch())
    update(loss)
    total += loss.item()
    if step % 100 == 99:
        session.log(loss=total / 100)
        total = 0.0
""", {"carried total"}),
    "nanoGPT's loop": ("""
def get_batch(split):
    data = torch.arange(64)
    ix = torch.randint(32, (2,))
    return torch.stack([data[i:i + 4].float() for i in ix]), torch.stack([data[i + 1:i + 5] for i in ix])

session.track(**train)
best_val_loss = 1e9
X, Y = get_batch("train")
t0 = time.time()
local_iter_num = 0
running_mfu = -1.0
ctx = nullcontext()
for iter_num in session.steps(N):
    lr = 1e-3 * iter_num
    for param_group in optimizer.param_groups:
        param_group["lr"] = lr
    if iter_num % 10 == 0:
        losses = {"train": 1.0, "val": 1.0}
        if losses["val"] < best_val_loss:
            best_val_loss = losses["val"]
    for micro_step in range(2):
        with ctx:
            loss = loss_of(X) / 2
        X, Y = get_batch("train")
        loss.backward()
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    t1 = time.time()
    dt = t1 - t0
    t0 = t1
    if local_iter_num >= 5:
        mfu = 1 / dt
        running_mfu = mfu if running_mfu == -1.0 else 0.9 * running_mfu + 0.1 * mfu
    local_iter_num += 1
""", {"carried X", "carried best_val_loss", "carried local_iter_num"}),
    "a batch fetched ahead of a tracked loader": ("""
batches = loader.forever()
session.track(**train)
batch = next(batches)
for step in session.steps(N):
    loss = loss_of(batch)
    batch = next(batches)
    update(loss)
""", {"carried batch"}),
    "an iterator over a plain loader, begun again when it ends": ("""
it = iter(plain)
session.track(**train)
for step in session.steps(N):
    try:
        (x,) = next(it)
    except StopIteration:
        it = iter(plain)
        (x,) = next(it)
    update(loss_of(x))
""", {"untracked it", "carried it"}),
    "zip with a plain loader": ("""
session.track(**train)
for step, (x,) in zip(session.steps(N), plain):
    update(loss_of(x))
""", {"untracked plain"}),
    "a cycle over a plain loader": ("""
batches = itertools.cycle(plain)
session.track(**train)
for step in session.steps(N):
    (x,) = next(batches)
    update(loss_of(x))
""", {"untracked batches"}),
    "a cycle over a tracked loader": ("""
batches = itertools.cycle(loader)
session.track(**train)
for step in session.steps(N):
    update(loss_of(next(batches)))
""", {"untracked batches"}),
    "a cycle over a tracked loader, in the loop's head": ("""
session.track(**train)
for step, x in zip(session.steps(N), itertools.cycle(loader)):
    update(loss_of(x))
""", {"untracked itertools.cycle(loader)"}),
    "epochs over a plain loader": ("""
session.track(**train)
steps = session.steps(N)
for epoch in range(3):
    for (x,) in plain:
        step = next(steps, None)
        if step is None:
            break
        update(loss_of(x))
""", {"untracked plain"}),
    "an epoch that is read": ("""
session.track(**train)
steps = session.steps(N)
for epoch in range(3):
    for x in loader:
        step = next(steps)
        update(loss_of(x))
        session.log(epoch=epoch)
""", {"carried epoch"}),
    "a list of batches": ("""
batches = [torch.randn(2, 4) for _ in range(N)]
session.track(**train)
for step, x in zip(session.steps(N), batches):
    update(loss_of(x))
""", {"carried x"}),
    "a generator with a position": ("""
def batches(data):
    while True:
        for row in data:
            yield row
stream = batches(torch.randn(16, 4))
session.track(**train)
for step in session.steps(N):
    update(loss_of(next(stream)))
""", {"untracked stream"}),
    "a generator that counts": ("""
def batches():
    at = 0
    while True:
        at += 1
        yield torch.full((2, 4), float(at))
stream = batches()
session.track(**train)
for step in session.steps(N):
    update(loss_of(next(stream)))
""", {"untracked stream"}),
    "a gradient scaler": ("""
scaler = torch.amp.GradScaler("cpu")
session.track(**train)
for step in session.steps(N):
    scaler.scale(loss_of(loader.next_batch())).backward()
    scaler.step(optimizer)
    scaler.update()
    optimizer.zero_grad()
""", {"untracked scaler"}),
    "torch's own generator object": ("""
generator = torch.Generator().manual_seed(1)
session.track(**train)
for step in session.steps(N):
    x = torch.randn(2, 4, generator=generator)
    update(loss_of(x))
""", {"untracked generator"}),
    "NumPy's and Python's generators, in a function that is called": ("""
rng, dice = np.random.default_rng(0), random.Random(1)
def draw():
    return torch.from_numpy(rng.standard_normal((2, 4))).float() * dice.random()
session.track(**train)
for step in session.steps(N):
    update(loss_of(draw()))
""", {"untracked rng", "untracked dice"}),
    "a generator inside an object of the user's": ("""
class Source:
    def __init__(self): self.rng = np.random.default_rng(0)
    def batch(self): return torch.from_numpy(self.rng.standard_normal((2, 4))).float()
source = Source()
session.track(**train)
for step in session.steps(N):
    update(loss_of(source.batch()))
""", {"untracked source.rng"}),
    "a second optimizer": ("""
d = nn.Linear(4, 1)
opt_d = torch.optim.SGD(d.parameters(), 0.1)
session.track(**train, d=d)
for step in session.steps(N):
    x = loader.next_batch()
    d(x).mean().backward()
    opt_d.step()
    update(loss_of(x))
""", {"untracked opt_d"}),
    "a discriminator that isn't tracked": ("""
d = nn.Linear(4, 1)
opt_d = torch.optim.SGD(d.parameters(), 0.1)
session.track(**train, opt_d=opt_d)
for step in session.steps(N):
    d(loader.next_batch()).mean().backward()
    opt_d.step()
    update(loss_of(loader.next_batch()))
""", {"untracked d"}),
    "optimizers in a list": ("""
extra = [torch.optim.SGD([p], 0.1) for p in model.parameters()]
session.track(**train)
for step in session.steps(N):
    loss_of(loader.next_batch()).backward()
    for one in extra:
        one.step()
""", {"untracked extra[0]", "untracked extra[1]"}),
    "a scheduler": ("""
warmup = torch.optim.lr_scheduler.LinearLR(optimizer)
session.track(model=model, optimizer=optimizer, loader=loader)
for step in session.steps(N):
    loss_of(loader.next_batch()).backward()
    optimizer.step()
    warmup.step()
""", {"untracked warmup"}),
    "an averaged model": ("""
ema = torch.optim.swa_utils.AveragedModel(model)
session.track(**train)
for step in session.steps(N):
    update(loss_of(loader.next_batch()))
    ema.update_parameters(model)
""", {"untracked ema"}),
    "an average by hand": ("""
ema = copy.deepcopy(model).requires_grad_(False)
session.track(**train)
for step in session.steps(N):
    update(loss_of(loader.next_batch()))
    with torch.no_grad():
        for p, q in zip(ema.parameters(), model.parameters()):
            p.lerp_(q, 0.01)
""", {"untracked ema"}),
    "an average by a function": ("""
ema = copy.deepcopy(model).requires_grad_(False)
def average(ema, model):
    for p, q in zip(ema.parameters(), model.parameters()):
        p.mul_(0.9).add_(q.detach(), alpha=0.1)
session.track(**train)
for step in session.steps(N):
    update(loss_of(loader.next_batch()))
    average(ema, model)
""", {"untracked ema"}),
    "a class with self.best": ("""
class Trainer:
    def __init__(self):
        self.model, self.optimizer, self.best, self.bad = model, optimizer, math.inf, 0
    def train_step(self, x):
        update(loss_of(x))
    def check(self):
        val = evaluate()
        if val < self.best:
            self.best, self.bad = val, 0
        else:
            self.bad += 1
    def fit(self):
        session.track(**train)
        for step in session.steps(N):
            self.train_step(loader.next_batch())
            self.check()
Trainer().fit()
""", {"carried self.best", "carried self.bad"}),
    "a class with an optimizer that isn't tracked": ("""
class Trainer:
    def __init__(self):
        self.net = nn.Linear(4, 2)
        self.optim = torch.optim.SGD(self.net.parameters(), 0.1)
    def step(self, x):
        self.net(x).mean().backward()
        self.optim.step()
    def fit(self):
        session.track(**train)
        for step in session.steps(N):
            self.step(loader.next_batch())
Trainer().fit()
""", {"untracked self.net", "untracked self.optim"}),
    "a global that a function counts": ("""
seen = 0
def count(x):
    global seen
    seen += len(x)
session.track(**train)
for step in session.steps(N):
    x = loader.next_batch()
    count(x)
    update(loss_of(x))
    session.log(seen=seen)
""", {"carried seen"}),
    "a dict": ("""
state = {"best": math.inf, "at": 0}
session.track(**train)
for step in session.steps(N):
    update(loss_of(loader.next_batch()))
    if evaluate() < state["best"]:
        state["best"] = evaluate()
        state["at"] = step
""", {"carried state['best']"}),
    "counts by key, and a window": ("""
counts = defaultdict(int)
window = deque(maxlen=10)
session.track(**train)
for step in session.steps(N):
    loss = loss_of(loader.next_batch())
    update(loss)
    counts[step % 3] += 1
    window.append(loss.item())
    session.log(mean=sum(window) / len(window))
""", {"carried counts", "carried window"}),
    "a tensor that sums up": ("""
centers = torch.zeros(4)
session.track(**train)
for step in session.steps(N):
    x = loader.next_batch()
    centers.mul_(0.9).add_(x.mean(0), alpha=0.1)
    update(loss_of(x - centers))
""", {"carried centers"}),
    "an attribute of the model": ("""
model.temperature = 1.0
session.track(**train)
for step in session.steps(N):
    model.temperature = max(0.1, model.temperature * 0.99)
    update(loss_of(loader.next_batch()) / model.temperature)
""", {"carried model.temperature"}),
    "an attribute in forward": ("""
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.lin, self.calls = nn.Linear(4, 2), 0
    def forward(self, x):
        self.calls += 1
        return self.lin(x) * (0.9 ** self.calls)
net = Net()
opt = torch.optim.SGD(net.parameters(), 0.1)
session.track(net=net, opt=opt, loader=loader)
for step in session.steps(N):
    net(loader.next_batch()).mean().backward()
    opt.step(); opt.zero_grad()
""", {"carried Net.calls"}),
    "the last loss, in a while loop": ("""
session.track(**train)
steps = session.steps(N)
previous = None
while (step := next(steps, None)) is not None:
    loss = loss_of(loader.next_batch())
    update(loss)
    if previous is not None and loss > 2 * previous:
        scheduler.step()
    previous = loss.item()
""", {"carried previous"}),
    "unbound at first": ("""
session.track(**train)
for step in session.steps(N):
    x = loader.next_batch()
    if step > 0:
        x = 0.5 * x + 0.5 * last
    last = x
    update(loss_of(x))
""", {"carried last"}),
    "skip on NaN, counted": ("""
skipped = 0
session.track(**train)
for step in session.steps(N):
    loss = loss_of(loader.next_batch())
    if not torch.isfinite(loss):
        skipped += 1
        if skipped > 10:
            raise RuntimeError("diverged")
        continue
    update(loss)
""", {"carried skipped"}),
    "a replay buffer": ("""
replay = []
session.track(**train)
for step in session.steps(N):
    replay.append(torch.randn(4))
    if len(replay) > 100:
        replay.pop(0)
    update(loss_of(torch.stack(random.choices(replay, k=2))))
""", {"carried replay"}),
    "a metric": ("""
class Mean:
    def __init__(self): self.sum = 0.0
    def update(self, x): self.sum += x
    def compute(self): return self.sum
    def reset(self): self.sum = 0.0
mean = Mean()
session.track(**train)
for step in session.steps(N):
    loss = loss_of(loader.next_batch())
    update(loss)
    mean.update(loss.item())
    if step % 100 == 99:
        session.log(loss=mean.compute())
        mean.reset()
""", {"untracked mean", "carried mean.sum"}),
    "a counter of its own": ("""
tick = itertools.count()
session.track(**train)
for step in session.steps(N):
    x = loader.next_batch() * (next(tick) + 1)
    update(loss_of(x))
""", {"untracked tick"}),
    "an evaluation loader with a generator of its own": ("""
val = DataLoader(dataset, batch_size=2, shuffle=True, generator=torch.Generator().manual_seed(3))
session.track(**train)
for step in session.steps(N):
    for (x,) in val:
        model(x)
    update(loss_of(loader.next_batch()))
""", {"untracked val.generator"}),
    "an epoch's best behind an inner loop": ("""
best = math.inf
session.track(**train)
steps = session.steps(N)
for epoch in range(10):
    for x in loader:
        step = next(steps)
        update(loss_of(x))
    if evaluate() < best:
        best = evaluate()
""", {"carried best"}),
}  # fmt: skip

GOOD: dict[str, str] = {
    "plain": """
session.track(**train)
for step in session.steps(N):
    update(loss_of(loader.next_batch()))
""",
    "in a function": """
def main():
    torch.manual_seed(0)
    net = nn.Linear(4, 2)
    opt = torch.optim.SGD(net.parameters(), 0.1)
    session.track(net=net, opt=opt)
    for step in session.steps(N):
        x = torch.randn(2, 4)
        loss = net(x).square().mean()
        opt.zero_grad()
        loss.backward()
        opt.step()
        session.log(loss=loss.item())
    print("last loss", loss)
main()
""",
    "accumulation": """
session.track(**train)
for step in session.steps(N):
    optimizer.zero_grad()
    total = 0.0
    for micro in range(4):
        loss = loss_of(loader.next_batch()) / 4
        loss.backward()
        total += loss.item()
    optimizer.step()
    session.log(loss=total)
""",
    "clock": """
session.track(**train)
t0 = begun = time.time()
tokens = 0
for step in session.steps(N):
    update(loss_of(loader.next_batch()))
    t1 = time.time()
    dt = t1 - t0
    t0 = t1
    session.log(dt=dt, total=time.time() - begun)
""",
    "tracked dict": """
best = {"loss": math.inf, "patience": 0}
session.track(**train, best=best)
for step in session.steps(N):
    update(loss_of(loader.next_batch()))
    if evaluate() < best["loss"]:
        best["loss"], best["patience"] = evaluate(), 0
    else:
        best["patience"] += 1
""",
    "tracked dataclass": """
@dataclass
class State:
    best: float = math.inf
    bad: int = 0
state = State()
session.track(**train, state=state)
for step in session.steps(N):
    update(loss_of(loader.next_batch()))
    state.bad += 1
    if evaluate() < state.best:
        state.best, state.bad = evaluate(), 0
""",
    "tracked list and deque": """
window, seen = deque(maxlen=4), []
session.track(**train, window=window, seen=seen)
for step in session.steps(N):
    loss = loss_of(loader.next_batch())
    update(loss)
    window.append(loss.item()); seen.append(step)
    session.log(mean=sum(window) / len(window))
""",
    "evaluation over a plain loader": """
session.track(**train)
for step in session.steps(N):
    if step % 2 == 0:
        model.eval()
        losses = []
        with torch.no_grad():
            for (x,) in plain:
                losses.append(loss_of(x).item())
        model.train()
        session.log(val=sum(losses) / len(losses))
    update(loss_of(loader.next_batch()))
""",
    "comprehension and walrus": """
session.track(**train)
for step in session.steps(N):
    losses = [loss_of(x) for x in (loader.next_batch() for _ in range(3))]
    if (worst := max(losses)) > 1:
        print(worst)
    by = {i: l.item() for i, l in enumerate(losses)}
    update(sum(losses))
    session.log(worst=worst.item(), **{str(k): v for k, v in by.items()})
""",
    "try, continue, break, finally, with": """
session.track(**train)
for step in session.steps(N):
    x = loader.next_batch()
    try:
        loss = loss_of(x)
    except RuntimeError as error:
        print(error)
        continue
    finally:
        torch.get_num_threads()
    with suppress(ValueError):
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    with torch.no_grad():
        value = loss.item()
    if value > 1e9:
        break
    update(loss)
""",
    "match": """
session.track(**train)
for step in session.steps(N):
    match step % 3:
        case 0:
            scale = 1.0
        case 1:
            scale = 2.0
        case other:
            scale = other
    update(loss_of(loader.next_batch()) * scale)
""",
    "iterator over a tracked loader": """
it = iter(loader)
session.track(**train)
for step in session.steps(N):
    try:
        x = next(it)
    except StopIteration:
        it = iter(loader)
        x = next(it)
    update(loss_of(x))
""",
    "forever, and zip": """
session.track(**train)
for step, x in zip(session.steps(N), loader.forever()):
    update(loss_of(x))
""",
    "an endless iterator of a tracked loader": """
batches = loader.forever()
session.track(**train)
for step in session.steps(N):
    update(loss_of(next(batches)))
""",
    "a generator without a state": """
def batches():
    while True:
        ix = torch.randint(8, (2,))
        yield torch.stack([torch.full((4,), float(i)) for i in ix])
stream = batches()
session.track(**train)
for step in session.steps(N):
    update(loss_of(next(stream)))
""",
    "epochs over a tracked loader": """
session.track(**train)
steps = session.steps(N)
for epoch in range(3):
    for x in loader:
        step = next(steps, None)
        if step is None:
            break
        update(loss_of(x))
""",
    "steps by epoch": """
session.track(**train)
for epoch in range(3):
    for step in session.steps((epoch + 1) * 100):
        update(loss_of(loader.next_batch()))
    session.log(epoch=epoch)
""",
    "a GAN": """
g, d = nn.Linear(4, 4), nn.Linear(4, 1)
opt_g, opt_d = torch.optim.Adam(g.parameters()), torch.optim.Adam(d.parameters())
criterion = nn.BCEWithLogitsLoss()
session.track(g=g, d=d, opt_g=opt_g, opt_d=opt_d, loader=loader)
for step in session.steps(N):
    real = loader.next_batch()
    fake = g(torch.randn(2, 4))
    loss_d = criterion(d(real), torch.ones(2, 1)) + criterion(d(fake.detach()), torch.zeros(2, 1))
    opt_d.zero_grad(); loss_d.backward(); opt_d.step()
    loss_g = criterion(d(fake), torch.ones(2, 1))
    opt_g.zero_grad(); loss_g.backward(); opt_g.step()
""",
    "a scaler, a generator and an average, tracked": """
scaler = torch.amp.GradScaler("cpu")
generator = torch.Generator().manual_seed(1)
ema = torch.optim.swa_utils.AveragedModel(model)
session.track(**train, scaler=scaler, generator=generator, ema=ema)
for step in session.steps(N):
    x = torch.randn(2, 4, generator=generator)
    scaler.scale(loss_of(x)).backward()
    scaler.step(optimizer); scaler.update(); optimizer.zero_grad()
    ema.update_parameters(model)
""",
    "LBFGS's closure": """
session.track(**train)
for step in session.steps(N):
    x = loader.next_batch()
    def closure():
        optimizer.zero_grad()
        loss = loss_of(x)
        loss.backward()
        return loss
    loss = optimizer.step(closure)
    session.log(loss=loss.item())
""",
    "a wrapper that knows its optimizer": """
class Lookahead:
    def __init__(self, base): self.base, self.param_groups = base, base.param_groups
    def step(self): self.base.step()
    def zero_grad(self): self.base.zero_grad()
    def state_dict(self): return self.base.state_dict()
    def load_state_dict(self, state): self.base.load_state_dict(state)
wrapped = Lookahead(optimizer)
session.track(model=model, optimizer=wrapped, loader=loader)
for step in session.steps(N):
    loss_of(loader.next_batch()).backward()
    wrapped.step(); wrapped.zero_grad()
    for group in optimizer.param_groups:
        group["lr"] = 0.1
""",
    "a frozen teacher, and a wrapped model": """
teacher = nn.Linear(4, 2).requires_grad_(False).eval()
compiled = nn.DataParallel(model)
session.track(**train)
for step in session.steps(N):
    x = loader.next_batch()
    with torch.no_grad():
        target = teacher(x)
    update((compiled(x) - target).square().mean())
""",
    "a metric that begins anew": """
class Mean:
    def __init__(self): self.sum = 0.0
    def update(self, x): self.sum += x
    def compute(self): return self.sum
    def reset(self): self.sum = 0.0
mean = Mean()
session.track(**train)
for step in session.steps(N):
    mean.reset()
    for x in loader:
        mean.update(loss_of(x).item())
    session.log(val=mean.compute())
    update(loss_of(loader.next_batch()))
""",
    "generators seeded by the step": """
rng = torch.Generator()
session.track(**train)
for step in session.steps(N):
    rng.manual_seed(step)
    noise = np.random.default_rng(step)
    x = torch.randn(2, 4, generator=rng) + float(noise.random())
    update(loss_of(x))
""",
    "made when first asked for": """
mask = None
session.track(**train)
for step in session.steps(N):
    x = loader.next_batch()
    if mask is None:
        mask = torch.ones_like(x)
    update(loss_of(x * mask))
""",
    "the session's own step": """
global_step = session.track(**train)
for _ in session.steps(N):
    update(loss_of(loader.next_batch()))
    global_step += 1
    session.log(step=global_step)
""",
    "a class": """
class Trainer:
    def __init__(self):
        self.model, self.optimizer = model, optimizer
        self.batch = None
    def fetch(self):
        self.batch = loader.next_batch()
    def step(self):
        self.fetch()
        self.loss = loss_of(self.batch)
        update(self.loss)
    def fit(self):
        session.track(**train)
        for self.at in session.steps(N):
            self.step()
            session.log(loss=self.loss.item())
Trainer().fit()
""",
    "Hugging Face's shape": """
class Accelerator:
    def backward(self, loss): loss.backward()
accelerator = Accelerator()
completed = session.track(**train)
progress = iter(())
model.train()
for step, batch in zip(session.steps(N), loader.forever()):
    outputs = model(batch)
    loss = outputs.square().mean() / 2
    accelerator.backward(loss)
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    scheduler.step()
    optimizer.zero_grad()
    completed += 1
    if completed % 10 == 0:
        logs = {"loss": loss.item(), "lr": scheduler.get_last_lr()[0]}
        session.log(**logs)
""",
    "a function of the step alone": """
def lr_at(step): return 1e-3 * min(1.0, (step + 1) / 10)
history = {}
session.track(**train)
for step in session.steps(N):
    lr = lr_at(step)
    for group in optimizer.param_groups:
        group["lr"] = lr
    stats = {}
    stats["loss"] = loss_of(loader.next_batch())
    update(stats["loss"])
    session.log(**{name: float(value) for name, value in stats.items()})
""",
    "evaluation in a helper with a loop of its own": """
@torch.no_grad()
def validate(net, data):
    net.eval()
    total = count = 0
    for (x,) in data:
        total += net(x).sum().item()
        count += 1
    net.train()
    return total / count
session.track(**train)
for step in session.steps(N):
    val = validate(model, plain)
    update(loss_of(loader.next_batch()))
""",
}  # fmt: skip
