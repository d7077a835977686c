// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"strings"
	"testing"
	"time"

	"fairlead.io/fairlead/kube/installed"
	"fairlead.io/fairlead/kube/kubetest"
)

func TestOperatorFlags(t *testing.T) {
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"operator"}, "needs the cluster's API server: --kubeconfig or --in-cluster"},
		{[]string{"operator", "--kubeconfig", "x", "--in-cluster"}, "name one API server"},
		{[]string{"operator", "shop"}, "takes no arguments"},
	} {
		cmd := root()
		var errs bytes.Buffer
		cmd.SetErr(&errs)
		cmd.SetOut(&errs)
		cmd.SetArgs(c.args)
		if code := run(t.Context(), cmd); code != exitUsage || !strings.Contains(errs.String(), c.want) {
			t.Errorf("%v: exit %d, %s", c.args, code, errs.String())
		}
	}
}

// One that is told to end does, without an error, and what it wrote can be taken back.
func TestOperatorEndsAndIsCleanedUp(t *testing.T) {
	api := kubetest.New(t)
	file := kubeconfig(t, api.TCP())
	ctx, cancel := context.WithCancelCause(t.Context())
	cmd := root()
	var said, errs bytes.Buffer
	cmd.SetErr(&errs)
	cmd.SetArgs([]string{"operator", "--kubeconfig", file, "--install-crds=false"})
	done := make(chan int, 1)
	go func() { done <- run(ctx, cmd) }()
	for end := time.Now().Add(time.Minute); api.Get("coordination.k8s.io", "leases", "fairlead-system/fairlead-operator") == nil; time.Sleep(50 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("it has taken no Lease in a minute")
		}
	}
	if o, err := installed.FindOperator(t.Context(), api.Config()); err != nil || o == nil || o.Version == "" || o.Holder == "" || o.Namespace != "fairlead-system" {
		t.Errorf("its Lease tells %+v, %v", o, err)
	}
	cancel(context.DeadlineExceeded) // with a cause, as a signal has one
	if code := <-done; code != 0 {
		t.Errorf("exit %d: %s", code, errs.String())
	}
	clean := root()
	clean.SetOut(&said)
	clean.SetErr(&said)
	clean.SetArgs([]string{"operator", "cleanup", "--kubeconfig", file, "-o", "json"})
	if code := run(t.Context(), clean); code != 0 || !strings.Contains(said.String(), `"statuses": 0`) {
		t.Errorf("exit %d: %s", code, said.String())
	}
	if l := api.Keys("coordination.k8s.io", "leases"); len(l) > 0 {
		t.Errorf("leases: %v", l)
	}
}
