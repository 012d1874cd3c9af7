"""GET /openapi.json: the API in OpenAPI 3.1."""

from collections.abc import Sequence
from typing import Any

from faceattr import __version__
from faceattr.commands.serving.http_errors import MEDIA_TYPE
from faceattr.config.schema import ServeOptions
from faceattr.data.faces.detect import POINTS

Json = dict[str, Any]
NUMBER: Json = {"type": "number"}
TEXT: Json = {"type": "string"}
WHOLE: Json = {"type": "integer"}
YES_NO: Json = {"type": "boolean"}
HEALTH: Json = {"status": {"const": "ok"}, "under_way": WHOLE, "queue": WHOLE}
MODEL: Json = {
    "name": TEXT,
    "classes": {"type": "array", "items": TEXT},
    "multilabel": YES_NO | {"description": "Whether each class is an attribute of its own."},
    "input": {
        "type": "object",
        "description": "What the network takes: height and width in pixels, and how images are resized.",
    },
    "faces": {"type": "object", "description": "How faces are found and cropped."},
    "temperature": NUMBER | {"description": "By which the logits are divided."},
    "explains": YES_NO | {"description": "Whether POST /explain is possible."},
    "abstain": {"type": ["number", "null"], "description": "Below this probability the answer is `uncertain`."},
    "summary": TEXT | {"description": "How often it was right, and for whom least often."},
    "notice": TEXT,
    "card": {"type": ["string", "null"], "description": "The model card of an exported model, in Markdown."},
    "limits": {"type": "object", "description": "The most bytes, pixels, faces and seconds."},
}


def openapi_document(classes: Sequence[str], limits: ServeOptions) -> Json:
    """The document for a model with these classes."""
    return {
        "openapi": "3.1.0",
        "info": {"title": "faceattr", "version": __version__, "description": "Attributes of the faces in a picture."},
        "paths": {
            "/predict": {"post": _predict(limits)},
            "/explain": {"post": _explain(classes, limits)},
            "/model": {"get": _get("model", "What the model is, how good it is, and what the server takes.")},
            "/health": {"get": _get("health", "Whether the server answers, and how many requests are under way.")},
        },
        "components": {"schemas": _schemas(classes)},
    }


def _predict(limits: ServeOptions) -> Json:
    answer = _content("application/json", {"$ref": "#/components/schemas/Answer"})
    return {
        "operationId": "predict",
        "summary": "The faces in an image, each with its answer. Without a face the list is empty.",
        "requestBody": _image_body(limits, {}),
        "responses": {"200": {"description": "The faces."} | answer}
        | _problems(400, 403, 408, 413, 415, 421, 422, 500, 503),
    }


def _explain(classes: Sequence[str], limits: ServeOptions) -> Json:
    fields: Json = {
        "label": {"type": "string", "enum": list(classes), "description": "By default the most probable class."},
        "face": {"type": "integer", "minimum": 0, "description": "Number of the face, as in the answer of /predict."},
    }
    return {
        "operationId": "explain",
        "summary": "Grad-CAM: the face as the network gets it, bright where the evidence for a class lies.",
        "parameters": [{"name": name, "in": "query", "schema": schema} for name, schema in fields.items()],
        "requestBody": _image_body(limits, fields),
        "responses": {"200": {"description": "The picture."} | _content("image/png", {})}
        | _problems(400, 403, 408, 413, 415, 421, 422, 500, 501, 503),
    }


def _image_body(limits: ServeOptions, fields: Json) -> Json:
    image = {"type": "string", "contentMediaType": "application/octet-stream"}
    form = {"type": "object", "required": ["image"], "properties": {"image": image} | fields}
    text = f"An image file of at most {limits.max_bytes:,} bytes and {limits.max_pixels:,} pixels."
    content = _content("multipart/form-data", form)["content"] | {"image/*": {}, "application/octet-stream": {}}
    return {"required": True, "description": text, "content": content}


def _get(name: str, summary: str) -> Json:
    answer = {"description": "JSON."} | _content(
        "application/json", {"$ref": f"#/components/schemas/{name.capitalize()}"}
    )
    return {"operationId": name, "summary": summary, "responses": {"200": answer}}


def _problems(*statuses: int) -> Json:
    problem = {"description": "Why there is no answer."} | _content(
        MEDIA_TYPE, {"$ref": "#/components/schemas/Problem"}
    )
    return {str(status): problem for status in statuses}


def _content(media_type: str, schema: Json) -> Json:
    return {"content": {media_type: {"schema": schema}}}


def _schemas(classes: Sequence[str]) -> Json:
    point = {"type": "array", "prefixItems": [NUMBER, NUMBER], "minItems": 2, "maxItems": 2}
    face = {
        "box": _object(dict.fromkeys(("x", "y", "width", "height"), NUMBER)),
        "points": _or_null(_object(dict.fromkeys(POINTS, point))),
        "score": {"type": ["number", "null"], "description": "How certain the detector is; null for a whole image."},
        "predicted": {"anyOf": [TEXT, {"type": "array", "items": TEXT}, {"type": "null"}]},
        "probabilities": _or_null(_object(dict.fromkeys(classes, NUMBER))),
        "unusual": {"type": ["boolean", "null"], "description": "Whether it looks unlike the model's training images."},
        "reason": {"type": ["string", "null"], "description": "Why there is no answer, or what was done instead."},
    }
    answer = {
        "image": _object({"width": {"type": "integer"}, "height": {"type": "integer"}}),
        "faces": {"type": "array", "items": {"$ref": "#/components/schemas/Face"}},
        "model": TEXT,
        "milliseconds": NUMBER,
    }
    problem = {"title": TEXT, "status": {"type": "integer"}, "detail": TEXT}
    objects = {"Answer": answer, "Face": face, "Problem": problem, "Health": HEALTH, "Model": MODEL}
    return {name: _object(properties) for name, properties in objects.items()}


def _object(properties: Json) -> Json:
    return {"type": "object", "required": list(properties), "properties": properties}


def _or_null(schema: Json) -> Json:
    return {"anyOf": [schema, {"type": "null"}]}
