"""Batched environments: one small contract (`rmdp.envs.batch`) and three ways to fulfil it."""
