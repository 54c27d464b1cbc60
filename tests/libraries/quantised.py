"""Quantised networks: weights alone, weights and activations at fixed or fresh scales, and trained with few bits."""

import copy
import warnings

import torch
from tests.libraries.digits import fit, held_out, trained_mlp
from torch import nn


class Brevitas(nn.Module):
    """Three bits for weights and activations, trained through the library's straight-through estimators."""

    def __init__(self):
        super().__init__()
        import brevitas.nn as qnn

        torch.manual_seed(0)
        self.given = qnn.QuantIdentity(bit_width=3)
        self.first = qnn.QuantLinear(64, 64, bias=True, weight_bit_width=3)
        self.relu = qnn.QuantReLU(bit_width=3)
        self.second = qnn.QuantLinear(64, 10, bias=True, weight_bit_width=3)

    def forward(self, x):
        z = self.given(x.flatten(1))  # guilty
        return self.second(self.relu(self.first(z)))  # guilty


def brevitas_3_bits():
    return fit(Brevitas())


def torchao_weights():
    from torchao.quantization import Int8WeightOnlyConfig, quantize_

    network = trained_mlp()
    quantize_(network, Int8WeightOnlyConfig())
    return network


class Standing(nn.Module):
    """A network whose forward calls another: the line that is to be named."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        return self.inner(x)  # guilty


def torchao_dynamic():
    from torchao.quantization import Int8DynamicActivationInt8WeightConfig, quantize_

    network = trained_mlp()
    quantize_(network, Int8DynamicActivationInt8WeightConfig())  # guilty
    return Standing(network).eval()


def torch_dynamic():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        network = torch.ao.quantization.quantize_dynamic(trained_mlp(), {nn.Linear}, dtype=torch.qint8)
    return Standing(network).eval()


def torch_static():
    from torch.ao.quantization import DeQuantStub, QuantStub, convert, get_default_qconfig, prepare

    network = nn.Sequential(QuantStub(), *trained_mlp(), DeQuantStub()).eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        network.qconfig = get_default_qconfig("x86")
        prepared = prepare(network)
        prepared(held_out(500).x)
        network = convert(prepared)  # guilty
    return Standing(network).eval()


def quanto_int8():
    from optimum.quanto import Calibration, freeze, qint8, quantize

    network = trained_mlp()
    quantize(network, weights=qint8, activations=qint8)
    with warnings.catch_warnings(), Calibration():
        warnings.simplefilter("ignore")
        network(held_out(500).x)
    freeze(network)
    return Standing(network).eval()


def bitsandbytes_int8():
    import bitsandbytes

    plain = trained_mlp()
    network = copy.deepcopy(plain)
    for n in (1, 3):
        layer = plain[n]
        quantised = bitsandbytes.nn.Linear8bitLt(
            layer.in_features, layer.out_features, has_fp16_weights=False
        )
        quantised.load_state_dict(layer.state_dict())
        network[n] = quantised.to("cpu")
    return Standing(network).eval()
