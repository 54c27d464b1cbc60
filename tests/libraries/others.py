"""Trees, preprocessing, differential equations, private training, other frameworks, exported and compiled networks."""

import os
import warnings

import torch
from tests.fixtures.digits_split import digits_split
from tests.libraries.digits import fit, held_out, mlp, trained_mlp
from torch import nn


class Forest(nn.Module):
    """A random forest of scikit-learn, compiled to tensors; logarithms of its votes."""

    def __init__(self):
        super().__init__()
        import hummingbird.ml
        from sklearn.ensemble import RandomForestClassifier

        data, _ = digits_split()
        forest = RandomForestClassifier(n_estimators=20, max_depth=8, random_state=0)
        forest.fit(data.x.flatten(1).numpy(), data.y.numpy())
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self.trees = hummingbird.ml.convert(forest, "torch").model
        self.forest = forest

    def forward(self, x):
        _, votes = self.trees(x.flatten(1))  # guilty
        return (votes + 1e-3).log()


def hummingbird_forest():
    return Forest().eval()


class Filtered(nn.Module):
    """An operation of kornia before a network that was trained behind it."""

    def __init__(self, operation):
        super().__init__()
        self.operation, self.network = operation, mlp()

    def forward(self, x):
        return self.network(self.operation(x))  # guilty


def kornia_median():
    import kornia

    return fit(Filtered(lambda x: kornia.filters.median_blur(x, 3)))


def kornia_posterise():
    import kornia

    return fit(Filtered(lambda x: kornia.enhance.posterize(x, 2)))  # guilty


def kornia_equalise():
    import kornia

    return fit(Filtered(kornia.enhance.equalize))


class Flow(nn.Module):
    """A neural differential equation between two linear layers."""

    def __init__(self, method):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.last = nn.Linear(64, 32), nn.Linear(32, 10)
        self.field = nn.Sequential(nn.Linear(32, 32), nn.Tanh(), nn.Linear(32, 32))
        self.method = method

    def forward(self, x):
        from torchdiffeq import odeint

        fixed = {} if self.method == "dopri5" else {"options": {"step_size": 0.125}}
        z = self.first(x.flatten(1))
        times = torch.tensor([0.0, 1.0])
        z = odeint(lambda t, z: self.field(z), z, times, method=self.method, rtol=1e-3, atol=1e-3, **fixed)[1]
        return self.last(z)


def torchdiffeq_rk4():
    return fit(Flow("rk4"))


def torchdiffeq_dopri5():
    return fit(Flow("dopri5"), epochs=6)


def opacus_private():
    """Trained with clipped and noised gradients of single examples; deployed inside the wrapper that takes them."""
    from opacus import PrivacyEngine

    data, _ = digits_split()
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))  # guilty
    optimiser = torch.optim.SGD(network.parameters(), lr=0.5)
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(data.x, data.y), batch_size=128)
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        private, optimiser, loader = PrivacyEngine().make_private(
            module=network, optimizer=optimiser, data_loader=loader, noise_multiplier=0.6, max_grad_norm=1.0
        )
        for _ in range(15):
            for x, y in loader:
                optimiser.zero_grad()
                nn.functional.cross_entropy(private(x), y).backward()
                optimiser.step()
    return private.eval()


class Channels(nn.Module):
    """A Keras network takes `[batch, height, width, channels]`."""

    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, x):
        return self.network(x.permute(0, 2, 3, 1))


def keras_cnn():
    os.environ["KERAS_BACKEND"] = "torch"
    import keras

    keras.utils.set_random_seed(0)
    layers = keras.layers
    network = keras.Sequential(
        [
            layers.Input((8, 8, 1)),
            layers.Conv2D(8, 3, activation="relu"),
            layers.Flatten(),
            layers.Dense(32, activation="relu"),
            layers.Dense(10),
        ]
    )
    return fit(Channels(network))


def exported():
    batch = torch.export.Dim("batch", min=1, max=4096)
    program = torch.export.export(trained_mlp(), (held_out(4).x,), dynamic_shapes=({0: batch},))
    return program.module()


def scripted():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.jit.script(trained_mlp())


def compiled():
    return torch.compile(trained_mlp())


class Logits(nn.Module):
    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, x):
        return self.network(pixel_values=x).logits


def transformers_vit():
    import transformers

    torch.manual_seed(0)
    config = transformers.ViTConfig(
        image_size=8, patch_size=2, num_channels=1, hidden_size=32, num_hidden_layers=2, num_attention_heads=4,
        intermediate_size=64, num_labels=10, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
    )  # fmt: skip
    return fit(Logits(transformers.ViTForImageClassification(config)), epochs=10)
