"""Is everything here that Callboard needs? Checks of the software, the machine and the Ray around; nothing is changed, Ray not loaded."""
