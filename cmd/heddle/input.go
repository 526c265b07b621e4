package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"

	"go.yaml.in/yaml/v3"

	"github.com/heddle-mesh/heddle/discovery/api"
	"github.com/heddle-mesh/heddle/discovery/api/apipb"
)

// source is a file of documents.
type source struct {
	name string
	data []byte
}

// readSources reads files, the manifests of directories, and "-" for stdin.
func readSources(e *env, paths []string) ([]source, error) {
	var out []source
	size := 0
	add := func(name string, r io.Reader) error {
		data, err := io.ReadAll(io.LimitReader(r, api.MaxMessage+1))
		if err != nil {
			return fmt.Errorf("read %s: %w", name, err)
		}
		if size += len(data); size > api.MaxMessage {
			return fmt.Errorf("read %s: the documents are larger than %d MiB together; apply them in parts", name, api.MaxMessage>>20)
		}
		out = append(out, source{name, data})
		return nil
	}
	for _, path := range paths {
		if path == "-" {
			if err := add("stdin", e.stdin); err != nil {
				return nil, err
			}
			continue
		}
		files, err := manifests(path)
		if err != nil {
			return nil, err
		}
		for _, file := range files {
			f, err := os.Open(file)
			if err != nil {
				return nil, err
			}
			err = add(file, f)
			f.Close()
			if err != nil {
				return nil, err
			}
		}
	}
	return out, nil
}

// manifests are the files of a path: itself, or what of a directory is YAML or JSON.
func manifests(path string) ([]string, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !info.IsDir() {
		return []string{path}, nil
	}
	entries, err := os.ReadDir(path)
	if err != nil {
		return nil, err
	}
	var out []string
	for _, entry := range entries {
		if ext := filepath.Ext(entry.Name()); !entry.IsDir() && slices.Contains([]string{".yaml", ".yml", ".json"}, ext) {
			out = append(out, filepath.Join(path, entry.Name()))
		}
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("%s has no .yaml, .yml or .json file", path)
	}
	return out, nil
}

// join makes one input of several sources, with the first line of each.
func join(sources []source) (data []byte, first []int) {
	var b bytes.Buffer
	line := 1
	for _, s := range sources {
		b.WriteString("---\n")
		line++
		first = append(first, line)
		b.Write(s.data)
		if !bytes.HasSuffix(s.data, []byte("\n")) {
			b.WriteByte('\n')
		}
		line = 1 + bytes.Count(b.Bytes(), []byte("\n"))
	}
	return b.Bytes(), first
}

// locate turns a line of joined sources into a file and its line.
func locate(sources []source, first []int, line int) (name string, at int) {
	for i := len(sources) - 1; i >= 0; i-- {
		if line >= first[i] {
			return sources[i].name, line - first[i] + 1
		}
	}
	return "", line
}

// refsOf reads what documents name, whether they are valid or not.
func refsOf(s source, namespace string) ([]*apipb.Ref, error) {
	decoder := yaml.NewDecoder(bytes.NewReader(s.data))
	var out []*apipb.Ref
	for {
		var doc struct {
			Kind     string
			Metadata struct{ Name, Namespace string }
		}
		err := decoder.Decode(&doc)
		if errors.Is(err, io.EOF) {
			return out, nil
		}
		if err != nil {
			return nil, fmt.Errorf("read %s: %w", s.name, err)
		}
		if doc.Kind == "" && doc.Metadata.Name == "" {
			continue // an empty document
		}
		ref := &apipb.Ref{Kind: doc.Kind, Namespace: doc.Metadata.Namespace, Name: doc.Metadata.Name}
		if ref.Namespace == "" {
			ref.Namespace = namespace
		}
		if ref.Kind == "" || ref.Name == "" {
			return nil, fmt.Errorf("read %s: a document has no kind or no metadata.name", s.name)
		}
		out = append(out, ref)
	}
}
