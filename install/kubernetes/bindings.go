package kubernetes

import (
	"context"
	"fmt"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// secretBindings are the RoleBindings of ingress.secretNamespaces, in whichever namespaces.
func (i *Installer) secretBindings(ctx context.Context) ([]*unstructured.Unstructured, error) {
	all, err := i.client.Resource(schema.GroupVersionResource{Group: "rbac.authorization.k8s.io", Version: "v1", Resource: "rolebindings"}).
		List(ctx, metav1.ListOptions{LabelSelector: "app.kubernetes.io/name=" + ingressName})
	if err != nil {
		return nil, fmt.Errorf("list RoleBindings: %w", err)
	}
	var out []*unstructured.Unstructured
	for n := range all.Items {
		out = append(out, &all.Items[n])
	}
	return out, nil
}
