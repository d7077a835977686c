// SPDX-License-Identifier: Apache-2.0

// Command fairlead-cni is a chained CNI plugin: the last of a node's network
// configuration, it lets a pod's containers start when the node's agent says that the
// kernel has the pod's policy. It makes nothing and changes nothing but a record of the
// attachment; see README.md.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"
	"github.com/containernetworking/cni/pkg/version"

	"fairlead.io/fairlead/cni"
)

// versions are those of the specification in which plugins can be chained.
var versions = version.PluginSupports("0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0")

func main() {
	p := plugin{out: os.Stdout, errs: os.Stderr, now: time.Now, lookAt: lookAt}
	skel.PluginMainFuncs(skel.CNIFuncs{Add: p.add, Del: p.del, Check: p.check, GC: p.gc, Status: p.status}, versions,
		"fairlead-cni: a chained CNI plugin that lets a pod start when its policy is in the kernel")
}

type plugin struct {
	out, errs io.Writer
	now       func() time.Time
	// lookAt finds where an interface of a network namespace ends on the node.
	lookAt func(netns, ifName string) (cni.Link, error)
}

// errTryAgain is what the specification has for "try again later".
const errTryAgain = types.ErrTryAgainLater

// add records the attachment, and waits until the agent has applied it.
func (p plugin) add(args *skel.CmdArgs) error {
	c, previous, err := cni.ParseConfig(args.StdinData)
	if err != nil {
		return types.NewError(types.ErrInvalidNetworkConfig, err.Error(), "")
	}
	if previous == nil {
		return types.NewError(types.ErrInvalidNetworkConfig, cni.Type+" has to be chained: it needs the result of the plugin that makes the pod's interface (prevResult)",
			"put it last among the plugins of a .conflist")
	}
	r, err := record(args, previous, p.now())
	switch {
	case err != nil:
		return types.NewError(types.ErrInvalidNetworkConfig, err.Error(), "")
	case r.Pod == "" || len(r.Addresses) == 0:
		// Nothing that Kubernetes has, or without an address: nobody can send it anything.
		return p.answer(previous)
	}
	closed, why := c.IsClosed(r.Namespace)
	if err := c.TellPlace(); err != nil { // an agent tries, too
		fmt.Fprintf(p.errs, "%s: %v\n", cni.Type, err)
	}
	if r.Link, err = p.lookAt(args.Netns, args.IfName); err != nil {
		// What has no veth on the node is never guarded here, however long it waits.
		return p.judge(previous, closed, fmt.Sprintf("Fairlead cannot guard pod %s: %v; %s", r.Key(), err, why))
	}
	if err := cni.Write(c.RunDir, r); err != nil {
		return p.judge(previous, closed, fmt.Sprintf("Fairlead cannot take pod %s up: %v; %s", r.Key(), err, why))
	}
	ctx, cancel := context.WithTimeout(context.Background(), c.Wait())
	defer cancel()
	got := cni.Ask(ctx, c.RunDir, r.ID, closed)
	if got.Guarded {
		if got.State != "" {
			fmt.Fprintf(p.errs, "%s: pod %s starts guarded, and without its routes yet: %s\n", cni.Type, r.Key(), got.State)
		}
		return p.answer(previous)
	}
	who := "the agent of this node does not answer"
	if got.Heard {
		who = "the agent of this node is not done"
	}
	text := fmt.Sprintf("Fairlead has no policy in the kernel yet for pod %s after %s: %s: %s; %s. It is tried again; see kubectl -n %s get pods -o wide, and the logs of fairlead-agent on this node",
		r.Key(), got.Waited.Round(100*time.Millisecond), who, got.State, why, c.AgentNamespace)
	if !got.Heard {
		text += fmt.Sprintf(". If Fairlead is no longer in this cluster, run fairlead agent uninstall on this node, or take %s out of the files in %s", cni.Type, filepath.Dir(c.StateDir))
	}
	err = p.judge(previous, closed, text)
	if err != nil {
		// The runtime gives the attachment up, and need not say so.
		return errors.Join(err, cni.Remove(c.RunDir, r.ID))
	}
	return nil
}

// judge ends an ADD without the agent's word: a closed namespace has its pods tried again,
// any other goes on.
func (p plugin) judge(previous json.RawMessage, closed bool, why string) error {
	if closed {
		return types.NewError(errTryAgain, why, "")
	}
	fmt.Fprintf(p.errs, "%s: pod goes on: %s\n", cni.Type, why)
	return p.answer(previous)
}

// answer gives the result of the plugins before as it came.
func (p plugin) answer(previous json.RawMessage) error {
	_, err := p.out.Write(append(slices.Clone(previous), '\n'))
	return err
}

// del takes the record away. It needs no agent, and fails for nothing that is gone.
func (p plugin) del(args *skel.CmdArgs) error {
	c, _, err := cni.ParseConfig(args.StdinData)
	if err != nil {
		// Of a configuration that is broken now, and was not when the pod came.
		c = &cni.Config{RunDir: cni.DefaultRunDir}
	}
	return cni.Remove(c.RunDir, cni.ID{Container: args.ContainerID, IfName: args.IfName})
}

// checkLimit bounds the agent's answer to a check.
const checkLimit = time.Second

// check finds the attachment as it was made: its record, its interface, and, if an agent
// is there, that it is guarded.
func (p plugin) check(args *skel.CmdArgs) error {
	c, previous, err := cni.ParseConfig(args.StdinData)
	if err != nil {
		return types.NewError(types.ErrInvalidNetworkConfig, err.Error(), "")
	}
	if previous == nil {
		return types.NewError(types.ErrInvalidNetworkConfig, "there is no prevResult to check", "")
	}
	id := cni.ID{Container: args.ContainerID, IfName: args.IfName}
	r, err := cni.Read(c.RunDir, id)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // it was made before the plugin was there, or is nothing of Kubernetes
	}
	if err != nil {
		return err
	}
	link, err := p.lookAt(args.Netns, args.IfName)
	if err != nil {
		return err
	}
	if link != r.Link {
		return fmt.Errorf("pod %s is at interface %s (%d), and was at %s (%d)", r.Key(), link.Name, link.Index, r.Link.Name, r.Link.Index)
	}
	ctx, cancel := context.WithTimeout(context.Background(), checkLimit)
	defer cancel()
	if got := cni.Ask(ctx, c.RunDir, id, true); got.Heard && !got.Guarded {
		return fmt.Errorf("pod %s is not guarded: %s", r.Key(), got.State)
	}
	return nil
}

// gc takes away the records of attachments that are not valid any more.
func (p plugin) gc(args *skel.CmdArgs) error {
	c, _, err := cni.ParseConfig(args.StdinData)
	if err != nil {
		return types.NewError(types.ErrInvalidNetworkConfig, err.Error(), "")
	}
	var conf types.NetConf
	if err := json.Unmarshal(args.StdinData, &conf); err != nil {
		return types.NewError(types.ErrDecodingFailure, err.Error(), "")
	}
	if conf.ValidAttachments == nil {
		return types.NewError(types.ErrInvalidNetworkConfig, "it does not say which attachments are valid (cni.dev/valid-attachments)", "")
	}
	var valid []cni.ID
	for _, a := range conf.ValidAttachments {
		valid = append(valid, cni.ID{Container: a.ContainerID, IfName: a.IfName})
	}
	return cni.Keep(c.RunDir, valid)
}

// status says that attachments can be made. A node without an agent still has pods that
// need none: what they may is said when each of them comes.
func (p plugin) status(args *skel.CmdArgs) error {
	if _, _, err := cni.ParseConfig(args.StdinData); err != nil {
		return types.NewError(types.ErrInvalidNetworkConfig, err.Error(), "")
	}
	return nil
}

// kubernetesArgs are what runtimes say of a pod.
type kubernetesArgs struct{ namespace, pod, uid string }

// parseArgs reads CNI_ARGS: "K=V;K=V".
func parseArgs(text string) (a kubernetesArgs) {
	for pair := range strings.SplitSeq(text, ";") {
		k, v, _ := strings.Cut(pair, "=")
		switch k {
		case "K8S_POD_NAMESPACE":
			a.namespace = v
		case "K8S_POD_NAME":
			a.pod = v
		case "K8S_POD_UID":
			a.uid = v
		}
	}
	return a
}

// record is what an ADD says of the attachment.
func record(args *skel.CmdArgs, previous json.RawMessage, now time.Time) (cni.Record, error) {
	var result struct {
		IPs []struct{ Address string } `json:"ips"`
	}
	if err := json.Unmarshal(previous, &result); err != nil {
		return cni.Record{}, fmt.Errorf("read prevResult: %w", err)
	}
	k := parseArgs(args.Args)
	r := cni.Record{ID: cni.ID{Container: args.ContainerID, IfName: args.IfName}, Namespace: k.namespace, Pod: k.pod, UID: k.uid, At: now}
	for _, ip := range result.IPs {
		p, err := netip.ParsePrefix(ip.Address)
		if err != nil {
			return cni.Record{}, fmt.Errorf("read prevResult: address %q: %w", ip.Address, err)
		}
		r.Addresses = append(r.Addresses, p.Addr().Unmap())
	}
	slices.SortFunc(r.Addresses, netip.Addr.Compare)
	r.Addresses = slices.Compact(r.Addresses)
	return r, nil
}
