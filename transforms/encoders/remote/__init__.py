"""Models on a server of the protocol POST /v1/embeddings: OpenAI's, and those of TEI, vLLM and Infinity."""
