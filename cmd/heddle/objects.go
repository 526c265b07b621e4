package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/heddle-mesh/heddle/controlplane/admin"
	"github.com/heddle-mesh/heddle/discovery/api/apipb"
)

// document is an object as the control plane gives it.
type document struct {
	ref *apipb.Ref
	raw json.RawMessage
	object
}

// object is what of a document every kind has.
type object struct {
	APIVersion string          `json:"apiVersion"`
	Kind       string          `json:"kind"`
	Metadata   metadata        `json:"metadata"`
	Spec       json.RawMessage `json:"spec"`
	Status     admin.Status    `json:"status"`
}

type metadata struct {
	Name        string            `json:"name"`
	Namespace   string            `json:"namespace,omitempty"`
	Labels      map[string]string `json:"labels,omitempty"`
	Annotations map[string]string `json:"annotations,omitempty"`
	Generation  int64             `json:"generation,omitempty"`
	Created     time.Time         `json:"creationTimestamp,omitzero"`
}

// get fetches objects.
func (c *client) get(ctx context.Context, r *apipb.GetRequest) ([]document, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	stream, err := c.objects.Get(ctx, r)
	if err != nil {
		return nil, err
	}
	var out []document
	for {
		d, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return out, nil
		}
		if err != nil {
			return nil, err
		}
		doc := document{ref: d.GetRef(), raw: d.GetJson()}
		if err := json.Unmarshal(d.GetJson(), &doc.object); err != nil {
			return nil, fmt.Errorf("read %s as the control plane gave it: %w", label(d.GetRef()), err)
		}
		out = append(out, doc)
	}
}

// faults are the conditions that say no, in their order.
func (o object) faults() []admin.Condition {
	var out []admin.Condition
	for _, c := range o.Status.Conditions {
		if c.Status == admin.False {
			out = append(out, c)
		}
	}
	return out
}
