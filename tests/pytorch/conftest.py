"""What PyTorch itself warns of while its transforms and compiler start."""


def pytest_configure(config):
    for line in (
        # torch._decomp scripts functions of its own when forward mode first runs
        r"ignore:`torch.jit.script` is (deprecated|not supported):DeprecationWarning",
        r"ignore:`torch.jit.script_method` is (deprecated|not supported):DeprecationWarning",
    ):
        config.addinivalue_line("filterwarnings", line)
