package kubernetes

import (
	"context"
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
)

// RootsConfigMap has the fingerprints of the mesh's roots, for pods of the mesh's own
// namespace, which no injector tells them. They are no secret, but whoever may change
// them decides whom such a pod believes.
const RootsConfigMap = "heddle-roots"

// rootsKey is where they are, as the sidecar wants them in its environment.
const rootsKey = "fingerprints"

// PublishRoots writes the fingerprints, unless they are there already.
func (c *Client) PublishRoots(ctx context.Context, namespace string, fingerprints []string) error {
	next := &corev1.ConfigMap{ObjectMeta: objectMeta(namespace, RootsConfigMap), Data: map[string]string{rootsKey: strings.Join(fingerprints, ",")}}
	now := new(corev1.ConfigMap)
	err := c.core.Get().Namespace(namespace).Resource("configmaps").Name(RootsConfigMap).Timeout(callTimeout).Do(ctx).Into(now)
	switch {
	case apierrors.IsNotFound(err):
		err = c.core.Post().Namespace(namespace).Resource("configmaps").Timeout(callTimeout).Body(next).Do(ctx).Error()
	case err == nil && now.Data[rootsKey] != next.Data[rootsKey]:
		next.ResourceVersion = now.ResourceVersion
		err = c.core.Put().Namespace(namespace).Resource("configmaps").Name(RootsConfigMap).Timeout(callTimeout).Body(next).Do(ctx).Error()
	}
	if err != nil && !apierrors.IsAlreadyExists(err) && !apierrors.IsConflict(err) { // another replica was first
		return fmt.Errorf("write ConfigMap %s/%s: %w", namespace, RootsConfigMap, err)
	}
	return nil
}
