"""A GAN: two models and two optimizers in one step, on made-up pictures."""

import torch
from spot_training import Session
from torch import nn

torch.manual_seed(0)
generator = nn.Sequential(
    nn.Linear(32, 512), nn.ReLU(), nn.Linear(512, 1024), nn.ReLU(), nn.Linear(1024, 784), nn.Tanh()
)
critic = nn.Sequential(nn.Linear(784, 1024), nn.LeakyReLU(0.2), nn.Dropout(0.3), nn.Linear(1024, 1))
of_generator = torch.optim.Adam(generator.parameters(), lr=2e-4, betas=(0.5, 0.999))
of_critic = torch.optim.Adam(critic.parameters(), lr=2e-4, betas=(0.5, 0.999))
loss = nn.BCEWithLogitsLoss()
BATCH = 256

session = Session.open()
session.track(generator=generator, critic=critic, of_generator=of_generator, of_critic=of_critic)
for _ in session.steps(40):
    real = torch.sin(torch.linspace(0, 20, 784) + 6 * torch.rand(BATCH, 1))
    ones, zeros = torch.ones(BATCH, 1), torch.zeros(BATCH, 1)

    fake = generator(torch.randn(BATCH, 32))
    judged = loss(critic(real), ones) + loss(critic(fake.detach()), zeros)
    of_critic.zero_grad()
    judged.backward()
    of_critic.step()

    fooled = loss(critic(fake), ones)
    of_generator.zero_grad()
    fooled.backward()
    of_generator.step()
    session.log(critic=judged.item(), generator=fooled.item())
session.finish(lambda folder: torch.save(generator.state_dict(), folder / "generator.pt"))
