"""Lets AgentDojo be imported without the client libraries of the model vendors, which it asks for and this never uses."""

import importlib.abc
import importlib.machinery
import sys
import types

ABSENT = {"anthropic", "cohere", "dotenv", "google", "langchain", "openai", "requests", "rich", "tenacity", "vertexai"}


class _Names(type):
    def __getattr__(cls, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return cls

    def __or__(cls, other):
        return cls

    __ror__ = __or__


class _Anything(metaclass=_Names):
    """Stands for every class, function and decorator of a library that is not there."""

    def __init__(self, *_, **__):
        pass

    def __call__(self, function):
        return function


class _Module(types.ModuleType):
    __path__: list = []

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return _Anything


class _Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ABSENT:
            return importlib.machinery.ModuleSpec(name, self, is_package=True)
        return None

    def create_module(self, spec):
        return _Module(spec.name)

    def exec_module(self, module):
        pass


sys.meta_path.append(_Finder())
