"""A STAND-IN for the module `tensorrt`: the few calls that the runtime makes, answered by ONNX Runtime on the CPU.

It shows that the calls are made in their order and with what belongs in them. That TensorRT builds and runs these
engines it does not show; `make gpu` does, where there is a GPU and the package.
"""

import ctypes
from types import ModuleType

import numpy as np


class Logger:
    ERROR = 2

    def __init__(self, severity):
        self.severity = severity


class Flag(int):
    STRONGLY_TYPED = 1


class Builder:
    def __init__(self, logger):
        assert isinstance(logger, Logger)

    def create_network(self, flags):
        assert flags == 1 << Flag.STRONGLY_TYPED
        return Network()

    def create_builder_config(self):
        return object()

    def build_serialized_network(self, network, config):
        return network.content


class Network:
    content = None


class OnnxParser:
    def __init__(self, network, logger):
        self.network, self.errors = network, []

    def parse(self, content):
        self.network.content = content if content[:1] == b"\x08" else None  # ir_version, the first field of a model
        return self.network.content is not None

    @property
    def num_errors(self):
        return 1

    def get_error(self, place):
        return "no ONNX model"


class Runtime:
    def __init__(self, logger):
        assert isinstance(logger, Logger)

    def deserialize_cuda_engine(self, plan):
        return Engine(plan)


class Engine:
    def __init__(self, plan):
        import onnxruntime

        self.session = onnxruntime.InferenceSession(plan, providers=["CPUExecutionProvider"])

    def create_execution_context(self):
        return Context(self.session)


class Context:
    def __init__(self, session):
        self.session, self.addresses = session, {}

    def set_tensor_address(self, name, address):
        self.addresses[name] = address

    def execute_async_v3(self, stream):
        (given,), (wanted,) = self.session.get_inputs(), self.session.get_outputs()
        (found,) = self.session.run(None, {given.name: at(self.addresses[given.name], given.shape)})
        at(self.addresses[wanted.name], wanted.shape)[...] = found
        return True


def at(address, shape):
    """The float32 numbers that lie there."""
    count = int(np.prod(shape))
    return np.ctypeslib.as_array(ctypes.cast(address, ctypes.POINTER(ctypes.c_float)), (count,)).reshape(shape)


def stand_in():
    module = ModuleType("tensorrt")
    module.Logger, module.Builder, module.OnnxParser, module.Runtime = Logger, Builder, OnnxParser, Runtime
    module.NetworkDefinitionCreationFlag = Flag
    return module
