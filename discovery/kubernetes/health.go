package kubernetes

import (
	"context"
	"errors"
	"log/slog"
	"sync"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
)

// patientFor is how many requests in a row for one resource may find the API server in
// trouble before it is worth a word: one that starts or is busy is for a while.
const patientFor = 5

// health tells once when the API server cannot be reached or refuses something, and once
// when that is over.
type health struct {
	log *slog.Logger

	mu      sync.Mutex // guards what follows
	away    bool
	refused map[*resource]string // what was said of it
	trouble map[*resource]int    // requests in a row
}

func newHealth(log *slog.Logger) *health {
	return &health{log: log, refused: map[*resource]string{}, trouble: map[*resource]int{}}
}

// saw notes the outcome of a request.
func (h *health) saw(r *resource, err error) {
	var status apierrors.APIStatus
	h.mu.Lock()
	defer h.mu.Unlock()
	switch {
	case errors.Is(err, context.Canceled): // by us
	case err != nil && !errors.As(err, &status):
		if !h.away {
			h.log.Warn("the API server cannot be reached; the mesh stays as it is", "resource", r.path, "error", err)
		}
		h.away = true
	case inTrouble(err):
		if h.trouble[r]++; h.trouble[r] == patientFor {
			h.log.Warn("the API server is in trouble; the mesh stays as it is", "resource", r.path, "error", err)
		}
	default:
		if h.away {
			h.log.Info("the API server is back")
		}
		h.away = false
		delete(h.trouble, r)
		h.answered(r, err)
	}
}

// answered notes an answer that is the API server's considered one. h.mu is held.
func (h *health) answered(r *resource, err error) {
	switch {
	case err == nil:
		delete(h.refused, r)
	case apierrors.IsNotFound(err), apierrors.IsResourceExpired(err), apierrors.IsGone(err):
		// a kind that is not installed; a watch that has to begin again
	case h.refused[r] != err.Error():
		h.refused[r] = err.Error()
		h.log.Warn("the API server refuses a watch", "resource", r.path, "error", err)
	}
}

func inTrouble(err error) bool {
	return apierrors.IsServiceUnavailable(err) || apierrors.IsTooManyRequests(err) || apierrors.IsInternalError(err) ||
		apierrors.IsTimeout(err) || apierrors.IsServerTimeout(err)
}
