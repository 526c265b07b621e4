package inject

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"
)

// Explain says in sentences why a pod of a cluster has a sidecar or not, and what to do
// where that is not what its labels ask for. The configuration's revision is the one that
// the pod belongs to.
func Explain(document map[string]any, ns Namespace, c Config) (string, error) {
	pod, err := typed(document)
	if err != nil {
		return "", err
	}
	if c.Revision = ns.Labels[RevisionLabel]; pod.Labels[RevisionLabel] != "" {
		c.Revision = pod.Labels[RevisionLabel]
	}
	if c.Revision == "" {
		c.Revision = DefaultRevision
	}
	name := fmt.Sprintf("pod %s/%s", ns.Name, pod.Name)
	by, there := pod.Annotations[Injected], HasSidecar(pod)
	d, err := Decide(pod, ns, c)
	if err == nil && d.Inject {
		_, err = read(pod, c)
	}
	switch {
	case there && by != "" && by != c.Revision:
		return fmt.Sprintf("%s has a sidecar of revision %s; made anew it would get one of revision %s (label %s). %s", name, by, c.Revision, RevisionLabel, restart(pod)), nil
	case there && by != "" && (err != nil || !d.Inject):
		return fmt.Sprintf("%s has a sidecar of revision %s; made anew it would have none: %s.", name, by, reason(d, err)), nil
	case there && by != "":
		return fmt.Sprintf("%s has a sidecar of revision %s: %s.", name, by, d.Reason) + unstarted(pod, ns.Name), nil
	case there:
		return fmt.Sprintf("%s has a container %s and no annotation %s: Heddle did not make it, and the mesh does not know the pod. Rename the container.", name, proxyName, Injected), nil
	case err != nil:
		return fmt.Sprintf("%s has no sidecar and would be refused if it were made anew: %s.", name, reason(d, err)), nil
	case d.Inject:
		return fmt.Sprintf("%s has no sidecar but is to have one: %s. It was made before the label, or while the webhook could not be asked. %s", name, d.Reason, restart(pod)), nil
	}
	return fmt.Sprintf("%s has no sidecar: %s.", name, d.Reason), nil
}

func reason(d Decision, err error) string {
	if err != nil {
		return err.Error()
	}
	return d.Reason
}

// unstarted says of a sidecar that is not ready for its application where to read why.
func unstarted(pod *corev1.Pod, namespace string) string {
	for _, s := range pod.Status.InitContainerStatuses {
		when := ""
		switch {
		case s.Name != proxyName:
			continue
		case s.State.Waiting != nil: // its hook runs, or has failed
			when = ", once it has tried for a minute"
		case s.State.Running == nil || s.Started != nil && *s.Started:
			continue
		}
		return fmt.Sprintf(" The sidecar has not started yet, and the application waits for it: kubectl -n %s logs %s -c %s says why%s.", namespace, pod.Name, proxyName, when)
	}
	return ""
}

// restart says how a pod is made anew.
func restart(pod *corev1.Pod) string {
	for _, owner := range pod.OwnerReferences {
		switch owner.Kind {
		case "ReplicaSet", "StatefulSet", "DaemonSet", "Job", "ReplicationController":
			return fmt.Sprintf("Delete the pod, and its %s %s makes it anew; or restart the whole workload with kubectl rollout restart.", owner.Kind, owner.Name)
		}
	}
	return "Nothing makes the pod anew; delete it and create it again."
}
