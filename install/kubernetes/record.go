package kubernetes

import (
	"context"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/yaml"
)

// An installation keeps the values that it was made with, so that an upgrade need not be
// told them again: those that are not the chart's defaults, which may change.
const (
	recordName = "heddle-values"
	recordKey  = "values.yaml"
)

// Changed is what of v is not the chart's default.
func (v Values) Changed() (Values, error) {
	defaults, err := DefaultValues()
	if err != nil {
		return nil, err
	}
	return difference(v, defaults), nil
}

func difference(v, defaults map[string]any) map[string]any {
	out := map[string]any{}
	for key, value := range v {
		inner, isMap := value.(map[string]any)
		was, wasMap := defaults[key].(map[string]any)
		switch {
		case isMap && wasMap:
			if d := difference(inner, was); len(d) > 0 {
				out[key] = d
			}
		case !reflect.DeepEqual(value, defaults[key]):
			out[key] = value
		}
	}
	return out
}

// Record is the ConfigMap with the values of an installation.
func Record(namespace string, v Values) (*unstructured.Unstructured, error) {
	changed, err := v.Changed()
	if err != nil {
		return nil, err
	}
	text, err := yaml.Marshal(changed)
	if err != nil {
		return nil, fmt.Errorf("write the values: %w", err)
	}
	o := own("v1", "ConfigMap", namespace, recordName+suffix(v))
	o.SetLabels(map[string]string{"app.kubernetes.io/part-of": "heddle"})
	return o, unstructured.SetNestedField(o.Object, string(text), "data", recordKey)
}

// Recorded puts the values that an installation was made with over v, and tells whether
// there is a record of them.
func (i *Installer) Recorded(ctx context.Context, namespace, revision string, v Values) (bool, error) {
	name := recordName + suffix(Values{"revision": revision})
	o, err := i.client.Resource(schema.GroupVersionResource{Version: "v1", Resource: "configmaps"}).Namespace(namespace).Get(ctx, name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("the installation's values: %w", err)
	}
	text, _, _ := unstructured.NestedString(o.Object, "data", recordKey)
	return true, v.Merge(fmt.Sprintf("ConfigMap %s/%s", namespace, name), []byte(text))
}

// Forgotten names the values that an installation was made with and that are the chart's
// again in v, as where install is run a second time without them.
func (i *Installer) Forgotten(ctx context.Context, namespace string, v Values) ([]string, error) {
	was, there, err := i.before(ctx, namespace, v)
	if err != nil || !there {
		return nil, err
	}
	kept, err := was.Changed()
	if err != nil {
		return nil, err
	}
	given, err := v.Changed()
	if err != nil {
		return nil, err
	}
	return missing("", kept, given), nil
}

// before are the values that the installation of v's revision was made with, the chart's where
// there is no record of them, which it tells.
func (i *Installer) before(ctx context.Context, namespace string, v Values) (was Values, there bool, err error) {
	if was, err = DefaultValues(); err == nil {
		there, err = i.Recorded(ctx, namespace, fmt.Sprint(v["revision"]), was)
	}
	return was, there, err
}

// Outdated are the objects that an installation may have beside now, those of the values v:
// objects of features that are off, and of the values that it was made with. The definitions
// of our kinds and the namespace always stay.
func (i *Installer) Outdated(ctx context.Context, namespace string, v Values, now []*unstructured.Unstructured) (outdated []*unstructured.Unstructured, err error) {
	was, _, err := i.before(ctx, namespace, v)
	if err != nil {
		return nil, err
	}
	was["revision"] = v["revision"]
	all, err := renderAll(namespace, v)
	if err != nil {
		return nil, err
	}
	before, err := renderAll(namespace, was)
	if err != nil {
		return nil, fmt.Errorf("the installation's values: %w", err)
	}
	all = append(all, before...)
	if fmt.Sprint(v["revision"]) == "default" {
		bindings, err := i.secretBindings(ctx)
		if err != nil {
			return nil, err
		}
		all = append(all, bindings...)
	}
	seen := map[string]bool{}
	for _, o := range now {
		seen[label(o)] = true
	}
	for _, o := range all {
		if !seen[label(o)] && o.GetKind() != "CustomResourceDefinition" && o.GetKind() != "Namespace" {
			outdated = append(outdated, o)
		}
		seen[label(o)] = true
	}
	return outdated, nil
}

// renderAll are the objects of an installation with all features on.
func renderAll(namespace string, v Values) ([]*unstructured.Unstructured, error) {
	v = maps.Clone(v)
	for _, set := range []string{"injection.cni=true", "ingress.enabled=true", "networkPolicy.enabled=true"} {
		if err := v.Set(set); err != nil {
			return nil, err
		}
	}
	return Render(namespace, v)
}

// missing lists the paths of a that b lacks.
func missing(at string, a, b map[string]any) (paths []string) {
	for key, value := range a {
		path := strings.TrimPrefix(at+"."+key, ".")
		inner, isMap := value.(map[string]any)
		other, has := b[key]
		if isMap {
			otherMap, _ := other.(map[string]any)
			paths = append(paths, missing(path, inner, otherMap)...)
		} else if !has {
			paths = append(paths, path)
		}
	}
	slices.Sort(paths)
	return paths
}

// Installed tells whether a revision is installed, and by whom: "Helm" or "".
func (i *Installer) Installed(ctx context.Context, namespace, revision string) (there bool, by string, err error) {
	d, err := i.client.Resource(schema.GroupVersionResource{Group: "apps", Version: "v1", Resource: "deployments"}).Namespace(namespace).
		Get(ctx, DeploymentName(Values{"revision": revision}), metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return false, "", nil
	}
	if err != nil {
		return false, "", fmt.Errorf("look for the installation: %w", err)
	}
	if d.GetAnnotations()["meta.helm.sh/release-name"] != "" {
		by = "Helm"
	}
	return true, by, nil
}
