from .checking import Server as Server
from .checking import check_server as check_server
from .child_process import HOST as HOST
from .child_process import free_port as free_port
from .child_process import running as running
from .vllm.launching import prepare as prepare
