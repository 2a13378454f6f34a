"""Good: all in a function, with helpers and constants around it."""

import torch
from spot_training import Session
from torch import nn

WIDTH = 4
ROWS = [16, 8]


def batch(rows):
    return torch.randn(rows, WIDTH)


def main():
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(WIDTH, 8), nn.Dropout(0.2), nn.Linear(8, 1))
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-2, momentum=0.9)
    with Session.open() as session:
        session.track(model=model, optimizer=optimizer)
        for step in session.steps(1000):
            total = 0.0
            for rows in ROWS:
                loss = model(batch(rows)).square().mean()
                loss.backward()
                total += loss.item()
            optimizer.step()
            optimizer.zero_grad()
            session.log(loss=total, twice=2 * total, step_again=step)
        session.finish()


if __name__ == "__main__":
    main()
