"""Train by gradient descent: plan, loop, checkpoints, history, callbacks and logs."""
