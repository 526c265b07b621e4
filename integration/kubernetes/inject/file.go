package inject

import (
	"bytes"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	utiljson "k8s.io/apimachinery/pkg/util/json"
	kubeyaml "sigs.k8s.io/yaml"
)

// Result is what became of one workload of a file.
type Result struct {
	Object string // KIND NAMESPACE/NAME
	Line   int    // where its document begins
	Decision
}

// File gives the YAML or JSON documents of data with sidecars in all workloads: pods and
// whatever has a template of pods, also in a List. Namespaces count as labelled unless
// a document of the file says otherwise. Everything else stays as it is, byte by byte; of
// a document that is changed the comments and the order stay. source names the file in
// errors; the error has everything that is wrong in any document.
func File(source string, data []byte, namespace string, c Config) ([]byte, []Result, error) {
	f := &file{source: source, namespace: namespace, config: c, labels: map[string]map[string]string{}}
	chunks := splitDocuments(data)
	values := make([]map[string]any, len(chunks))
	for i, chunk := range chunks {
		values[i] = f.decode(chunk)
		f.note(values[i])
	}
	var out bytes.Buffer
	for i, chunk := range chunks {
		f.line = chunk.line
		edits := f.object(values[i], "")
		if len(edits) == 0 {
			out.Write(chunk.text)
			continue
		}
		if chunk.marked() {
			out.WriteString("---\n")
		}
		text, err := rewrite(chunk.text, values[i], edits)
		if err != nil {
			f.fail(label(values[i], namespace), err)
		}
		out.Write(text)
	}
	slices.SortStableFunc(f.errs, func(a, b fileError) int { return a.line - b.line })
	var errs []error
	for _, e := range f.errs {
		errs = append(errs, e.err)
	}
	return out.Bytes(), f.results, errors.Join(errs...)
}

// file is one File on its way.
type file struct {
	source, namespace string
	config            Config
	labels            map[string]map[string]string // of the namespaces in the file
	line              int
	results           []Result
	errs              []fileError
}

type fileError struct {
	line int
	err  error
}

func (f *file) fail(object string, err error) {
	for message := range strings.SplitSeq(err.Error(), "\n") { // joined errors
		f.errs = append(f.errs, fileError{f.line, fmt.Errorf("%s:%d: %s%s", f.source, f.line, object, message)})
	}
}

var yamlLine = regexp.MustCompile(`line (\d+): (.*)`)

// notYAML notes errors of syntax, whose lines count from that of the document.
func (f *file) notYAML(err error) {
	found := yamlLine.FindAllStringSubmatch(err.Error(), -1)
	if found == nil {
		f.fail("", fmt.Errorf("not YAML: %w", err))
	}
	begin := f.line
	for _, m := range found {
		n, _ := strconv.Atoi(m[1]) // digits
		f.line = begin + n - 1
		f.fail("", fmt.Errorf("not YAML: %s", m[2]))
	}
	f.line = begin
}

// decode reads a document as kubectl does; nil is one without a mapping.
func (f *file) decode(c documentText) map[string]any {
	f.line = c.line
	data, err := kubeyaml.YAMLToJSONStrict(c.text)
	if err != nil {
		f.notYAML(err)
		return nil
	}
	var value any
	if err := utiljson.Unmarshal(data, &value); err != nil {
		f.fail("", err)
	}
	m, _ := value.(map[string]any)
	return m
}

// note remembers what a file says of its namespaces.
func (f *file) note(value map[string]any) {
	for _, item := range mappings(value, "items") {
		f.note(item)
	}
	meta, _ := value["metadata"].(map[string]any)
	name, _ := meta["name"].(string)
	if value["kind"] != "Namespace" || value["apiVersion"] != "v1" || name == "" {
		return
	}
	f.labels[name] = map[string]string{}
	labels, _ := meta["labels"].(map[string]any)
	for key, v := range labels {
		if text, ok := v.(string); ok {
			f.labels[name][key] = text
		}
	}
}

// namespaceOf is the namespace of an object, which the user wants sidecars in unless the
// file says otherwise.
func (f *file) namespaceOf(value map[string]any) Namespace {
	meta, _ := value["metadata"].(map[string]any)
	name, _ := meta["namespace"].(string)
	if name == "" {
		name = f.namespace
	}
	labels := f.labels[name]
	if labels[InjectLabel] == "" {
		labels = map[string]string{InjectLabel: "enabled", RevisionLabel: f.config.Revision}
	}
	return Namespace{Name: name, Labels: labels}
}

// object gives the changes of one object, whose place in its document is at.
func (f *file) object(value map[string]any, at string) []Operation {
	if items, ok := value["items"].([]any); ok {
		var out []Operation
		for i, item := range items {
			if m, ok := item.(map[string]any); ok {
				out = append(out, f.object(m, at+"/items/"+strconv.Itoa(i))...)
			}
		}
		return out
	}
	path, ok := templateOf(value)
	if !ok {
		return nil
	}
	name := label(value, f.namespace)
	template := value
	for _, step := range path {
		at += "/" + step
		template, _ = template[step].(map[string]any)
	}
	if template == nil {
		f.fail(name, fmt.Errorf("it has no %s", strings.Join(path, ".")))
		return nil
	}
	after, d, err := Pod(template, f.namespaceOf(value), f.config)
	if err != nil {
		f.fail(name, err)
		return nil
	}
	f.results = append(f.results, Result{strings.TrimSuffix(name, ": "), f.line, d})
	patch, err := Patch(template, after)
	if err != nil {
		f.fail(name, err)
	}
	for i := range patch {
		patch[i].Path = at + patch[i].Path
	}
	return patch
}

// templateOf is where an object has its pod, for kinds that have one.
func templateOf(value map[string]any) (path []string, ok bool) {
	kind, _ := value["kind"].(string)
	version, _ := value["apiVersion"].(string)
	group, _, _ := strings.Cut(version, "/")
	switch group + " " + kind {
	case "v1 Pod":
		return nil, true
	case "v1 ReplicationController", "apps Deployment", "apps StatefulSet", "apps DaemonSet", "apps ReplicaSet", "batch Job":
		return []string{"spec", "template"}, true
	case "batch CronJob":
		return []string{"spec", "jobTemplate", "spec", "template"}, true
	}
	return nil, false
}

// label names an object in messages.
func label(value map[string]any, namespace string) string {
	meta, _ := value["metadata"].(map[string]any)
	name, _ := meta["name"].(string)
	if name == "" {
		name, _ = meta["generateName"].(string)
	}
	if own, _ := meta["namespace"].(string); own != "" {
		namespace = own
	}
	return fmt.Sprintf("%v %s/%s: ", value["kind"], namespace, name)
}
