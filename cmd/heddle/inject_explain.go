package main

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strings"

	"github.com/heddle-mesh/heddle/integration/kubernetes/inject"
)

// runExplain prints why a pod has a sidecar or not.
func (f *injectFlags) runExplain(ctx context.Context, e *env) error {
	namespace, name, ok := strings.Cut(f.explain, "/")
	if !ok || namespace == "" || name == "" || strings.Contains(name, "/") {
		return usagef("--explain %q: want NAMESPACE/POD", f.explain)
	}
	data, err := f.podAndNamespace(ctx, e, namespace, name)
	if err != nil {
		return err
	}
	list, err := inject.Decode(data)
	if err != nil {
		return fmt.Errorf("read the pod and its namespace: %w", err)
	}
	var pod map[string]any
	ns := inject.Namespace{Name: namespace}
	items, _ := list["items"].([]any)
	for _, item := range items {
		object, _ := item.(map[string]any)
		meta, _ := object["metadata"].(map[string]any)
		switch {
		case object["kind"] == "Pod" && meta["name"] == name:
			pod = object
		case object["kind"] == "Namespace" && meta["name"] == namespace:
			ns.Labels = map[string]string{}
			labels, _ := meta["labels"].(map[string]any)
			for key, value := range labels {
				ns.Labels[key], _ = value.(string)
			}
		}
	}
	if pod == nil || ns.Labels == nil {
		return fmt.Errorf("want a List with pod %s and namespace %s, as kubectl get pod/%s namespace/%s -n %[2]s -o json writes it", name, namespace, name, namespace)
	}
	text, err := inject.Explain(pod, ns, f.sidecars)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(e.stdout, text)
	return err
}

// podAndNamespace is a List of the two, by kubectl or from a file.
func (f *injectFlags) podAndNamespace(ctx context.Context, e *env, namespace, name string) ([]byte, error) {
	if len(f.files) > 0 {
		sources, err := readSources(e, f.files)
		if err != nil {
			return nil, err
		}
		if len(sources) != 1 {
			return nil, usagef("--explain reads one file, not %d", len(sources))
		}
		return sources[0].data, nil
	}
	arguments := []string{"get", "pod/" + name, "namespace/" + namespace, "--namespace", namespace, "--output", "json"}
	if f.context != "" {
		arguments = append(arguments, "--context", f.context)
	}
	var stderr bytes.Buffer
	cmd := exec.CommandContext(ctx, "kubectl", arguments...)
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	switch {
	case errors.Is(err, exec.ErrNotFound):
		return nil, errors.New("kubectl is not in PATH; install it, or give what it writes with -f")
	case err != nil:
		return nil, fmt.Errorf("kubectl %s: %s", strings.Join(arguments, " "), cmp.Or(strings.TrimSpace(stderr.String()), err.Error()))
	}
	return out, nil
}
