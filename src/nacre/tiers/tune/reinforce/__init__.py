"""Reinforcement: rollouts, rewards, advantages and updates (PPO, GRPO). Its stages are in `reinforcing.py`."""
