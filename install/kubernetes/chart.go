package kubernetes

import (
	"bytes"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"
	"text/template"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"
)

// Files are the chart's, under "chart".
//
//go:embed all:chart
var Files embed.FS

// Namespace is where the control plane goes unless it is told otherwise.
const Namespace = "heddle-system"

// Render makes the objects of the chart, in the order in which they are to be applied: the
// namespace first, and the webhooks, which stand in the way of pods, last.
func Render(namespace string, values Values) ([]*unstructured.Unstructured, error) {
	documents, err := render(namespace, values)
	if err != nil {
		return nil, err
	}
	objects := []*unstructured.Unstructured{namespaceObject(namespace)}
	definitions, err := Definitions()
	if err != nil {
		return nil, err
	}
	objects = append(objects, definitions...)
	for _, name := range slices.Sorted(keys(documents)) {
		more, err := parse(documents[name])
		if err != nil {
			return nil, fmt.Errorf("chart: %s: %w", name, err)
		}
		objects = append(objects, more...)
	}
	slices.SortStableFunc(objects, func(a, b *unstructured.Unstructured) int { return rank(a) - rank(b) })
	return objects, nil
}

// Definitions are the CustomResourceDefinitions of Heddle's kinds. Helm makes them, too, but
// never changes them.
func Definitions() ([]*unstructured.Unstructured, error) {
	names, err := fs.Glob(Files, "chart/crds/*.yaml")
	if err != nil {
		return nil, err
	}
	var out []*unstructured.Unstructured
	for _, name := range names {
		data, err := fs.ReadFile(Files, name)
		if err != nil {
			return nil, err
		}
		objects, err := parse(data)
		if err != nil {
			return nil, fmt.Errorf("chart: %s: %w", name, err)
		}
		out = append(out, objects...)
	}
	return out, nil
}

// namespaceObject is the namespace of the control plane. Helm makes it with
// --create-namespace, without these labels.
func namespaceObject(name string) *unstructured.Unstructured {
	return &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "v1", "kind": "Namespace",
		"metadata": map[string]any{"name": name, "labels": map[string]any{
			"app.kubernetes.io/part-of":          "heddle",
			"heddle.dev/inject":                  "disabled",
			"pod-security.kubernetes.io/enforce": "restricted",
		}},
	}}
}

// DeploymentName is the name of the control plane's Deployment.
func DeploymentName(v Values) string { return "heddle-controlplane" + suffix(v) }

// suffix ends the names of what belongs to a revision.
func suffix(v Values) string {
	if rev, _ := v["revision"].(string); rev != "default" {
		return "-" + rev
	}
	return ""
}

// NodeAgent is the namespace and name of the DaemonSet that keeps the CNI plugin in place,
// and whether these values have one.
func NodeAgent(v Values) (namespace, name string, there bool) {
	injection, _ := v["injection"].(map[string]any)
	cni, _ := v["cni"].(map[string]any)
	namespace, _ = cni["namespace"].(string)
	there, _ = injection["cni"].(bool)
	return namespace, "heddle-cni", there && v["revision"] == "default"
}

// ingressName is what the chart calls the Deployment that serves Ingresses, its Service, its
// label and its service account.
const ingressName = "heddle-ingress"

// Ingress is the name of the Deployment that serves Ingresses, and whether these values have
// one.
func Ingress(v Values) (name string, there bool) {
	ingress, _ := v["ingress"].(map[string]any)
	there, _ = ingress["enabled"].(bool)
	return ingressName, there && v["revision"] == "default"
}

// rank orders kinds: what others need goes first.
func rank(o *unstructured.Unstructured) int {
	order := []string{"Namespace", "CustomResourceDefinition", "ServiceAccount", "ClusterRole", "Role", "ClusterRoleBinding", "RoleBinding",
		"ConfigMap", "Secret", "Service",
		"ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding", "Deployment", "DaemonSet", "PodDisruptionBudget"}
	if i := slices.Index(order, o.GetKind()); i >= 0 {
		return i
	}
	return len(order)
}

// render executes the chart's templates, by name.
func render(namespace string, values Values) (map[string][]byte, error) {
	names, err := fs.Glob(Files, "chart/templates/*")
	if err != nil {
		return nil, err
	}
	root := template.New("").Option("missingkey=error")
	root.Funcs(functions(root))
	for _, name := range names {
		data, err := fs.ReadFile(Files, name)
		if err != nil {
			return nil, err
		}
		if _, err := root.New(path.Base(name)).Parse(string(data)); err != nil {
			return nil, fmt.Errorf("chart: %w", err)
		}
	}
	context := map[string]any{"Values": map[string]any(values), "Release": map[string]any{"Namespace": namespace, "Name": "heddle"}}
	out := map[string][]byte{}
	for _, name := range names {
		if strings.HasPrefix(path.Base(name), "_") {
			continue
		}
		var b bytes.Buffer
		if err := root.ExecuteTemplate(&b, path.Base(name), context); err != nil {
			return nil, fmt.Errorf("chart: %w", err)
		}
		out[path.Base(name)] = b.Bytes()
	}
	return out, nil
}

// functions are those of Helm's that the chart uses, and they do what Helm's do.
func functions(root *template.Template) template.FuncMap {
	return template.FuncMap{
		"include": func(name string, data any) (string, error) {
			var b strings.Builder
			err := root.ExecuteTemplate(&b, name, data)
			return b.String(), err
		},
		"nindent": func(n int, text string) string {
			pad := "\n" + strings.Repeat(" ", n)
			return pad + strings.ReplaceAll(text, "\n", pad)
		},
		"toJson": func(v any) (string, error) {
			data, err := json.Marshal(v)
			return string(data), err
		},
		"list": func(items ...any) []any { return items },
	}
}

// parse reads the documents of a rendered template.
func parse(data []byte) ([]*unstructured.Unstructured, error) {
	var out []*unstructured.Unstructured
	for _, document := range bytes.Split(append([]byte("\n"), data...), []byte("\n---\n")) {
		if len(bytes.TrimSpace(document)) == 0 {
			continue
		}
		o := new(unstructured.Unstructured)
		if err := yaml.UnmarshalStrict(document, &o.Object); err != nil {
			return nil, err
		}
		if o.GetKind() == "" {
			return nil, errors.New("a document without a kind")
		}
		out = append(out, o)
	}
	return out, nil
}
