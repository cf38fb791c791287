"""Trajectory-coupled data: questions and answers from the scenes and trajectories that actions are learnt from."""
