package manifest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"slices"

	"go.yaml.in/yaml/v3"

	"github.com/heddle-mesh/heddle/controlplane/mesh"
)

// Options say what a document leaves open.
type Options struct {
	// DefaultNamespace is for objects that name none; "" means "default".
	DefaultNamespace string
	// TrustDomain and ClusterDomain are the control plane's; "" means the defaults of
	// mesh.DefaultMeshConfig.
	TrustDomain, ClusterDomain string
	// Workloads lets documents of kind Workload in, which only registration makes.
	Workloads bool
}

func (o Options) withDefaults() Options {
	config := mesh.DefaultMeshConfig()
	if o.DefaultNamespace == "" {
		o.DefaultNamespace = "default"
	}
	if o.TrustDomain == "" {
		o.TrustDomain = config.TrustDomain
	}
	if o.ClusterDomain == "" {
		o.ClusterDomain = config.ClusterDomain
	}
	return o
}

// Object is a document that was read.
type Object struct {
	// Object is the value of the mesh, without generation, time and virtual addresses.
	Object mesh.Object
	Ref    mesh.Ref
	Source string // as given to Parse
	Line   int    // where the document begins
	// Document is the canonical JSON of apiVersion, kind, metadata and spec: what the
	// user wrote, with the namespace filled in and fields in the schema's order.
	Document []byte
}

// Parse reads all documents of data, ordered by reference. source names the input in
// errors. The error is of type Errors and holds everything that is wrong in any
// document; objects are only given when there is none.
func Parse(source string, data []byte, opts Options) ([]Object, error) {
	r := &reading{source: source, opts: opts.withDefaults()}
	if !r.readable(data) {
		return nil, r.errs
	}
	var objects []Object
	first := make(map[mesh.Ref]int)
	chunks := split(bytes.TrimPrefix(data, []byte("\ufeff")))
	if len(chunks) > maxDocuments {
		return nil, Errors{{Source: source, Message: fmt.Sprintf("has %d documents; at most %d are allowed, split the input", len(chunks), maxDocuments)}}
	}
	for _, c := range chunks {
		if len(r.errs) > maxErrors {
			break
		}
		root := r.tree(c)
		for _, doc := range documents(root) {
			object, ok := r.document(doc)
			if !ok {
				continue
			}
			if line, again := first[object.Ref]; again {
				cursor{r: r, node: doc}.errorf("the same object stands in line %d already; remove one of the two", line)
				continue
			}
			first[object.Ref] = object.Line
			objects = append(objects, object)
		}
	}
	if len(r.errs) > 0 {
		r.errs.sort()
		return nil, r.errs
	}
	slices.SortFunc(objects, func(a, b Object) int { return a.Ref.Compare(b.Ref) })
	return objects, nil
}

// documents are the objects of one YAML document: itself, or the items of a List, as
// `heddle get -o json` and kubectl print them.
func documents(root *yaml.Node) []*yaml.Node {
	if root == nil {
		return nil
	}
	at := cursor{node: root}
	kind, items := at.at("kind").node, at.at("items").node
	if items != root && items.Kind == yaml.SequenceNode && (kind == root || kind.Value == "List") {
		return items.Content
	}
	return []*yaml.Node{root}
}

// document reads one object.
func (r *reading) document(root *yaml.Node) (Object, bool) {
	at := cursor{r: r, node: root}
	r.ref = mesh.Ref{}
	if root.Kind != yaml.MappingNode {
		at.errorf("want an object with apiVersion, kind, metadata and spec, found %s", kindOf(root))
		return Object{}, false
	}
	before := len(r.errs)
	k, ok := r.kind(at)
	if !ok {
		return Object{}, false
	}
	r.ref = k.peekRef(at, r.opts)
	d := &document{Spec: reflect.New(k.spec).Interface().(spec)}
	at.decodeStruct(reflect.ValueOf(d).Elem())
	if d.Metadata.Namespace == "" && k.namespaced {
		d.Metadata.Namespace = r.opts.DefaultNamespace
		if wrong := textRules["label1123"](d.Metadata.Namespace); wrong != "" {
			at.errorf("the default namespace %s", wrong)
		}
	}
	k.checkName(at.at("metadata"), d)
	if spec := at.at("spec"); spec.node.Kind == yaml.MappingNode && spec.node != root {
		d.Spec.checkSpec(spec, d.Metadata)
	}
	if len(r.errs) > before {
		return Object{}, false
	}
	ref := mesh.Ref{Kind: mesh.Kind(d.Kind), Name: mesh.Name{Namespace: d.Metadata.Namespace, Name: d.Metadata.Name}}
	canonical, err := marshal(d)
	if err != nil {
		at.errorf("cannot be written as JSON: %v", err)
		return Object{}, false
	}
	return Object{
		Object: d.Spec.build(mesh.Meta{Ref: ref}, d.Metadata, r.opts), Ref: ref,
		Source: r.source, Line: r.line + root.Line, Document: canonical,
	}, true
}

// kind finds the schema of a document by its apiVersion and kind.
func (r *reading) kind(at cursor) (kind, bool) {
	name := at.at("kind")
	if name.node == at.node || name.node.Kind != yaml.ScalarNode {
		at.at("kind").errorf("missing; give one of %v", r.userKinds())
		return kind{}, false
	}
	k, ok := kinds[mesh.Kind(name.node.Value)]
	if !ok {
		name.errorf("heddle has no kind %s%s", quote(name.node.Value), Suggest(name.node.Value, r.userKinds()))
		return kind{}, false
	}
	r.ref = k.peekRef(at, r.opts)
	version := at.at("apiVersion")
	if version.node == at.node || version.node.Kind != yaml.ScalarNode || version.node.Value != k.apiVersion {
		found := "is missing"
		if version.node != at.node {
			found = "is " + quote(version.node.Value)
		}
		version.errorf("%s; give %s for a %s", found, k.apiVersion, name.node.Value)
		return kind{}, false
	}
	if k.registered && !r.opts.Workloads {
		name.errorf("a Workload is made by its sidecar's registration; remove the document and start `heddle sidecar`")
		return kind{}, false
	}
	return k, true
}

// userKinds are the kinds that people may write.
func (r *reading) userKinds() []string {
	var out []string
	for name, k := range kinds {
		if !k.registered {
			out = append(out, string(name))
		}
	}
	slices.Sort(out)
	return out
}

// marshal is encoding/json without its escapes for HTML.
func marshal(v any) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return nil, fmt.Errorf("encode: %w", err)
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), nil
}

// Kinds are the kinds that have documents, by name.
func Kinds() []mesh.Kind { return slices.Sorted(maps.Keys(kinds)) }
