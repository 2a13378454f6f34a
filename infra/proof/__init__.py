"""Proof without the cloud: what the stacks say, held against what Google's provider takes.

    $ python -m infra.proof workloads/llm/production.yaml
    $ python -m infra.proof cdktf.out

The provider's plugin can't be had everywhere, and asks for a login. Its schema comes with the bindings that the stacks
are written with: every resource, block and field, its type, whether it is required, and mostly which words it takes.
"""
