package kubernetes

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"reflect"
	"slices"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"
)

// fieldManager owns what we apply (server-side apply).
const fieldManager = "heddle"

// Installer applies objects to a cluster.
type Installer struct {
	client dynamic.Interface
	out    io.Writer // what is done, a line for each object
}

// NewInstaller makes an installer; out takes a line for each object.
func NewInstaller(config *rest.Config, out io.Writer) (*Installer, error) {
	client, err := dynamic.NewForConfig(config)
	if err != nil {
		return nil, fmt.Errorf("client of the API server: %w", err)
	}
	return &Installer{client, out}, nil
}

// resources are the kinds of the chart, with the names under which the API has them.
var resources = map[string]struct {
	name       string
	namespaced bool
}{
	"Namespace": {"namespaces", false}, "CustomResourceDefinition": {"customresourcedefinitions", false},
	"ServiceAccount": {"serviceaccounts", true}, "Secret": {"secrets", true}, "ConfigMap": {"configmaps", true}, "Service": {"services", true},
	"ClusterRole": {"clusterroles", false}, "ClusterRoleBinding": {"clusterrolebindings", false},
	"Lease": {"leases", true}, "IngressClass": {"ingressclasses", false},
	"Role": {"roles", true}, "RoleBinding": {"rolebindings", true},
	"Deployment": {"deployments", true}, "DaemonSet": {"daemonsets", true}, "PodDisruptionBudget": {"poddisruptionbudgets", true}, "NetworkPolicy": {"networkpolicies", true},
	"ValidatingAdmissionPolicy": {"validatingadmissionpolicies", false}, "ValidatingAdmissionPolicyBinding": {"validatingadmissionpolicybindings", false},
	"MutatingWebhookConfiguration":   {"mutatingwebhookconfigurations", false},
	"ValidatingWebhookConfiguration": {"validatingwebhookconfigurations", false},
}

func (i *Installer) resource(o *unstructured.Unstructured) (dynamic.ResourceInterface, error) {
	r, ok := resources[o.GetKind()]
	if !ok {
		return nil, fmt.Errorf("%s: the installer does not know the kind", label(o))
	}
	version, err := schema.ParseGroupVersion(o.GetAPIVersion())
	if err != nil {
		return nil, fmt.Errorf("%s: %w", label(o), err)
	}
	client := i.client.Resource(version.WithResource(r.name))
	if r.namespaced {
		return client.Namespace(o.GetNamespace()), nil
	}
	return client, nil
}

func label(o *unstructured.Unstructured) string {
	if o.GetNamespace() != "" {
		return fmt.Sprintf("%s %s/%s", o.GetKind(), o.GetNamespace(), o.GetName())
	}
	return o.GetKind() + " " + o.GetName()
}

// Apply applies objects in their order. With dryRun the API server checks everything and
// changes nothing.
func (i *Installer) Apply(ctx context.Context, objects []*unstructured.Unstructured, dryRun bool) error {
	for _, o := range objects {
		client, err := i.resource(o)
		if err != nil {
			return err
		}
		data, err := json.Marshal(o)
		if err != nil {
			return fmt.Errorf("%s: %w", label(o), err)
		}
		force := true // nobody else is to write what we write; what we do not write stays theirs
		options := metav1.PatchOptions{FieldManager: fieldManager, Force: &force}
		if dryRun {
			options.DryRun = []string{metav1.DryRunAll}
		}
		before, err := client.Get(ctx, o.GetName(), metav1.GetOptions{})
		if err != nil && !apierrors.IsNotFound(err) {
			return fmt.Errorf("%s: %w", label(o), err)
		}
		after, err := client.Patch(ctx, o.GetName(), types.ApplyPatchType, data, options)
		if err != nil {
			return fmt.Errorf("%s: %w", label(o), err)
		}
		fmt.Fprintf(i.out, "%-10s %s\n", outcome(before, after), label(o))
	}
	return nil
}

func outcome(before, after *unstructured.Unstructured) string {
	switch {
	case before == nil || before.GetUID() == "":
		return "created"
	case before.GetResourceVersion() != after.GetResourceVersion() || !reflect.DeepEqual(content(before), content(after)):
		return "configured" // of a dry run the version is the old one
	}
	return "unchanged"
}

// content is an object without what the API server keeps of its changes.
func content(o *unstructured.Unstructured) map[string]any {
	o = o.DeepCopy()
	for _, field := range []string{"managedFields", "resourceVersion", "generation"} {
		unstructured.RemoveNestedField(o.Object, "metadata", field)
	}
	return o.Object
}

// Uninstall deletes an installation: what was applied, and what the control plane made
// itself. The namespace goes with the default revision, which must be the last; the
// definitions of our kinds, and with them every object of them, only if that is asked for.
func (i *Installer) Uninstall(ctx context.Context, namespace string, values Values, definitions bool) error {
	// Whoever does not say how it was installed gets rid of the CNI plugin and the ingress, too.
	objects, err := renderAll(namespace, values)
	if err != nil {
		return err
	}
	record, err := Record(namespace, values)
	if err != nil {
		return err
	}
	objects = append(objects, record)
	name := DeploymentName(values)
	isLast := name == DeploymentName(Values{"revision": "default"})
	if isLast {
		if err := i.onlyRevision(ctx, namespace, name); err != nil {
			return err
		}
		bindings, err := i.secretBindings(ctx)
		if err != nil {
			return err
		}
		objects = append(objects, bindings...)
	}
	objects = slices.DeleteFunc(objects, func(o *unstructured.Unstructured) bool {
		return o.GetKind() == "CustomResourceDefinition" && !(definitions && isLast) || o.GetKind() == "Namespace" && !isLast
	})
	if err := i.Delete(ctx, objects, false); err != nil || isLast {
		return err
	}
	// What it made itself goes after it: a replica that still runs would make it again.
	return i.Delete(ctx, []*unstructured.Unstructured{
		own("v1", "Secret", namespace, "heddle-webhook"+suffix(values)), own("coordination.k8s.io/v1", "Lease", namespace, "heddle-status"+suffix(values)),
	}, false)
}

// own is an object that the control plane makes for itself.
func own(version, kind, namespace, name string) *unstructured.Unstructured {
	o := new(unstructured.Unstructured)
	o.SetAPIVersion(version)
	o.SetKind(kind)
	o.SetNamespace(namespace)
	o.SetName(name)
	return o
}

// onlyRevision finds other revisions, which would lose their namespace.
func (i *Installer) onlyRevision(ctx context.Context, namespace, name string) error {
	list, err := i.client.Resource(schema.GroupVersionResource{Group: "apps", Version: "v1", Resource: "deployments"}).Namespace(namespace).List(ctx,
		metav1.ListOptions{LabelSelector: "app.kubernetes.io/name=heddle-controlplane"})
	if err != nil {
		return fmt.Errorf("look for other revisions: %w", err)
	}
	for _, d := range list.Items {
		if d.GetName() != name {
			return fmt.Errorf("revision %s is installed, too; uninstall it first: heddle uninstall --set revision=%s", d.GetLabels()["heddle.dev/rev"], d.GetLabels()["heddle.dev/rev"])
		}
	}
	return nil
}

// Delete deletes objects in the opposite of their order and waits until they are gone.
// What is not there is no error. With dryRun the API server changes nothing.
func (i *Installer) Delete(ctx context.Context, objects []*unstructured.Unstructured, dryRun bool) error {
	foreground := metav1.DeletePropagationForeground
	options := metav1.DeleteOptions{PropagationPolicy: &foreground}
	if dryRun {
		options.DryRun = []string{metav1.DryRunAll}
	}
	objects = slices.Clone(objects)
	slices.Reverse(objects)
	var errs []error
	var going []*unstructured.Unstructured
	for _, o := range objects {
		client, err := i.resource(o)
		if err == nil {
			err = client.Delete(ctx, o.GetName(), options)
		}
		switch {
		case apierrors.IsNotFound(err):
			continue
		case err != nil:
			errs = append(errs, fmt.Errorf("%s: %w", label(o), err))
		default:
			fmt.Fprintf(i.out, "deleted    %s\n", label(o))
			going = append(going, o)
		}
	}
	if err := errors.Join(errs...); err != nil || dryRun {
		return err
	}
	for _, o := range going {
		if err := i.awaitGone(ctx, o); err != nil {
			return err
		}
	}
	return nil
}

func (i *Installer) awaitGone(ctx context.Context, o *unstructured.Unstructured) error {
	client, err := i.resource(o)
	if err != nil {
		return err
	}
	return poll(ctx, func() (string, error) {
		_, err := client.Get(ctx, o.GetName(), metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			return "", nil
		}
		return label(o) + " is still there", err
	})
}
