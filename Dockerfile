# A server of models, which are mounted into it:
#   docker build -t bert-serve .
#   docker run -p 8000:8000 -v "$PWD/out/reviews:/models/reviews:ro" bert-serve --model_dir=/models/reviews
FROM python:3.12-slim
COPY . /src
RUN pip install --no-cache-dir '/src[serve]' && rm -rf /src && useradd --uid 1000 --create-home bert
# As a number, by which a cluster can see that it is not root.
USER 1000
WORKDIR /home/bert
EXPOSE 8000
HEALTHCHECK --start-period=60s CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:8000/readyz')"]
ENTRYPOINT ["bert", "serve", "--host=0.0.0.0"]
