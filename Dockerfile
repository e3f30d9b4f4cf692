# A read-only dashboard for an audience: see “A link for the audience” in the README.
FROM python:3.11-slim

RUN useradd --create-home explorer && install --directory --owner=explorer /data
WORKDIR /app
COPY requirements.txt .
RUN pip install --no-cache-dir --extra-index-url https://download.pytorch.org/whl/cpu -r requirements.txt
COPY app.py LICENSE README.md ./
COPY .streamlit .streamlit
COPY backend backend
COPY cache/shipped cache/shipped
COPY circuitviz circuitviz
COPY pages pages
COPY shell shell
COPY takehome takehome

USER explorer
ENV CIRCUIT_EXPLORER_READ_ONLY=1 CIRCUIT_EXPLORER_LOCAL=/data HF_HUB_OFFLINE=1
EXPOSE 8501
HEALTHCHECK CMD python -c "import urllib.request; urllib.request.urlopen('http://localhost:8501/health')"
ENTRYPOINT ["streamlit", "run", "app.py", "--server.address=0.0.0.0"]
