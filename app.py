"""The door: everything that the pages share is in `shell`."""

import streamlit as st

import shell
from shell.circuit import answering
from shell.frame.protection import MIDDLEWARE
from shell.frame.server import MAKING_ROOM, ROUTES, log_jobs

if __name__ == "__main__":  # so Streamlit starts this file for each session
    shell.main()
else:  # and so once, for the server
    log_jobs()
    middleware = [*MIDDLEWARE, MAKING_ROOM]
    app = st.App(__file__, middleware=middleware, routes=[*ROUTES, answering.route()])
