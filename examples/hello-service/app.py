import subprocess
import sys

from flask import Flask

app = Flask(__name__)


@app.route("/")
def hello():
    addresses = subprocess.run(["ip", "addr"], capture_output=True, text=True).stdout
    return f"<h1>Hello from Python {sys.version.split()[0]}</h1>\n<pre>{addresses}</pre>\n"


if __name__ == "__main__":
    app.run(host="0.0.0.0", port=5000)
