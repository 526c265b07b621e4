package main

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"regexp"
	"time"
)

const (
	maxDocument = 64 << 10 // bytes
	// queryTimeout bounds a request's work in the database, retries included.
	queryTimeout = 5 * time.Second
)

var documentID = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]{0,62}[a-z0-9])?$`)

// handler answers the API's requests.
type handler struct {
	documents *documents
	version   string
	log       *slog.Logger
}

func newHandler(d *documents, version string, log *slog.Logger) http.Handler {
	h := &handler{d, version, log}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "ok\n") })
	mux.HandleFunc("GET /readyz", h.ready)
	for pattern, serve := range map[string]http.HandlerFunc{
		"GET /{$}":               h.any,
		"GET /version":           func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, version+"\n") },
		"GET /documents":         h.list,
		"GET /documents/{id}":    h.get,
		"PUT /documents/{id}":    h.put,
		"DELETE /documents/{id}": h.delete,
	} {
		mux.Handle(pattern, h.traced(serve))
	}
	return mux
}

func (h *handler) any(w http.ResponseWriter, r *http.Request) {
	doc, err := h.documents.any(r.Context())
	h.answer(w, r, doc, err)
}

func (h *handler) list(w http.ResponseWriter, r *http.Request) {
	docs, err := h.documents.list(r.Context())
	h.answer(w, r, docs, err)
}

func (h *handler) get(w http.ResponseWriter, r *http.Request) {
	doc, err := h.documents.get(r.Context(), r.PathValue("id"))
	h.answer(w, r, doc, err)
}

func (h *handler) put(w http.ResponseWriter, r *http.Request) {
	id := r.PathValue("id")
	if !documentID.MatchString(id) {
		fail(w, http.StatusBadRequest, "the id is not one of at most 64 lower case letters, digits and dashes")
		return
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxDocument))
	if tooLarge := (*http.MaxBytesError)(nil); errors.As(err, &tooLarge) {
		fail(w, http.StatusRequestEntityTooLarge, "the document is larger than 64 KiB")
		return
	}
	if err != nil {
		return // the caller is gone
	}
	var fields map[string]any
	if err := json.Unmarshal(body, &fields); err != nil || fields == nil {
		fail(w, http.StatusBadRequest, "the body is not a JSON object")
		return
	}
	doc, err := h.documents.put(r.Context(), id, body)
	h.answer(w, r, doc, err)
}

func (h *handler) delete(w http.ResponseWriter, r *http.Request) {
	if err := h.documents.delete(r.Context(), r.PathValue("id")); err != nil {
		h.answer(w, r, nil, err)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

func (h *handler) ready(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), time.Second)
	defer cancel()
	if err := h.documents.pool.Ping(ctx); err != nil {
		fail(w, http.StatusServiceUnavailable, "the database does not answer")
		return
	}
	io.WriteString(w, "ok\n")
}

// answer writes a document, or what went wrong.
func (h *handler) answer(w http.ResponseWriter, r *http.Request, doc json.RawMessage, err error) {
	switch {
	case errors.Is(err, errNoDocument):
		fail(w, http.StatusNotFound, "there is no such document")
	case errors.Is(err, errBadDocument):
		fail(w, http.StatusBadRequest, "the database cannot store this document")
	case err != nil:
		h.log.Warn("ask the database", "path", r.URL.Path, "error", err)
		fail(w, http.StatusServiceUnavailable, "the database does not answer")
	default:
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write(append(doc, '\n')) // an error is the caller's end
	}
}

func fail(w http.ResponseWriter, status int, message string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(map[string]string{"error": message})
}
