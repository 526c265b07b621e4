package manifest

import (
	"encoding/json"
	"fmt"
	"time"

	"go.yaml.in/yaml/v3"
)

// Stored is a canonical document with what a server knows about the object.
type Stored struct {
	Document   []byte // as Object.Document
	Generation int64
	Created    int64 // Unix nanoseconds
	Status     any   // written with encoding/json; nil leaves it out
}

// JSON is the document with metadata.generation, metadata.creationTimestamp and status.
// Parse reads it and skips them.
func (s Stored) JSON() ([]byte, error) {
	var doc struct {
		APIVersion string `json:"apiVersion"`
		Kind       string `json:"kind"`
		Metadata   struct {
			Name              string          `json:"name"`
			Namespace         string          `json:"namespace,omitempty"`
			Labels            json.RawMessage `json:"labels,omitempty"`
			Annotations       json.RawMessage `json:"annotations,omitempty"`
			Generation        int64           `json:"generation,omitempty"`
			CreationTimestamp string          `json:"creationTimestamp,omitempty"`
		} `json:"metadata"`
		Spec   json.RawMessage `json:"spec"`
		Status any             `json:"status,omitempty"`
	}
	if err := json.Unmarshal(s.Document, &doc); err != nil {
		return nil, fmt.Errorf("read stored document: %w", err)
	}
	doc.Metadata.Generation, doc.Status = s.Generation, s.Status
	if s.Created != 0 {
		doc.Metadata.CreationTimestamp = time.Unix(0, s.Created).UTC().Format(time.RFC3339)
	}
	return marshal(doc)
}

// YAML writes a JSON document as YAML, keys in the document's order. Parse reads it as
// it reads the JSON.
func YAML(document []byte) ([]byte, error) {
	var root yaml.Node
	if err := yaml.Unmarshal(document, &root); err != nil {
		return nil, fmt.Errorf("read document: %w", err)
	}
	block(&root)
	out, err := yaml.Marshal(&root)
	if err != nil {
		return nil, fmt.Errorf("write document: %w", err)
	}
	return out, nil
}

// block takes JSON's braces and quotes away where YAML can do without.
func block(n *yaml.Node) {
	if len(n.Content) > 0 || n.Kind == yaml.ScalarNode {
		n.Style = 0
	}
	for _, inner := range n.Content {
		block(inner)
	}
}
