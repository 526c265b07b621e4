package kubetest

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strconv"
)

// Do sends a request with body as JSON, unless it is nil, to a path of the API server, and
// reads the answer into into, unless that is nil. A PATCH is a merge patch. An answer that
// is no success is an error with what the API server says.
func (s *Server) Do(ctx context.Context, method, path string, body, into any) error {
	return s.do(ctx, s.client, method, s.url+path, body, into)
}

func (s *Server) do(ctx context.Context, client *http.Client, method, url string, body, into any) error {
	var data []byte
	if body != nil {
		var err error
		if data, err = json.Marshal(body); err != nil {
			return fmt.Errorf("%s %s: %w", method, url, err)
		}
	}
	request, err := http.NewRequestWithContext(ctx, method, url, bytes.NewReader(data))
	if err != nil {
		return err
	}
	request.Header.Set("Content-Type", "application/json")
	if method == http.MethodPatch {
		request.Header.Set("Content-Type", "application/merge-patch+json")
	}
	answer, err := client.Do(request)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil {
		return fmt.Errorf("%s %s: %w", method, url, err)
	}
	if answer.StatusCode/100 != 2 {
		return fmt.Errorf("%s %s: %s: %s", method, url, answer.Status, text)
	}
	if into == nil {
		return nil
	}
	return json.Unmarshal(text, into)
}

// Compact makes etcd forget all that is not the newest state, so that no watch can go on
// from an earlier one. A running API server remembers some of it itself.
func (s *Server) Compact(ctx context.Context) error {
	var state struct {
		Header struct{ Revision string }
	}
	// Any key will do: the answer's header has the revision.
	if err := s.do(ctx, http.DefaultClient, http.MethodPost, s.etcdURL+"/v3/kv/range", map[string]string{"key": "AA=="}, &state); err != nil {
		return fmt.Errorf("revision of etcd: %w", err)
	}
	if _, err := strconv.ParseInt(state.Header.Revision, 10, 64); err != nil {
		return fmt.Errorf("revision of etcd: %w", err)
	}
	return s.do(ctx, http.DefaultClient, http.MethodPost, s.etcdURL+"/v3/kv/compaction",
		map[string]any{"revision": state.Header.Revision, "physical": true}, nil)
}
