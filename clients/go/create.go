package main

import (
	"context"
	"fmt"

	v2 "kourou/hello/gen/apache/rocketmq/v2"
	adminv1 "kourou/hello/gen/kourou/admin/v1"
)

// create makes the topic and the group on all brokers. It returns when access points know the topic.
func create(ctx context.Context, o options) error {
	client := newClient()
	defer client.close()
	connection, err := client.connection(o.admin)
	if err != nil {
		return err
	}
	admin := adminv1.NewAdminClient(connection)

	topic, err := admin.CreateTopic(ctx, &adminv1.CreateTopicRequest{Name: &v2.Resource{Name: o.topic}, Queues: 4})
	if err := report("topic", o.topic, topic.GetOutcomes(), err); err != nil {
		return err
	}
	group, err := admin.CreateGroup(ctx, &adminv1.CreateGroupRequest{Name: &v2.Resource{Name: o.group}})
	return report("group", o.group, group.GetOutcomes(), err)
}

// report passes over what was there before. Each broker has an outcome of its own: one that is down fails alone.
func report(kind, name string, outcomes []*adminv1.Outcome, err error) error {
	if refusedWith(err, v2.Code_PRECONDITION_FAILED) {
		fmt.Println(err)
		return nil
	}
	if err != nil {
		return err
	}
	for _, outcome := range outcomes {
		if err := check(outcome.Status); err != nil {
			return fmt.Errorf("%s: %w", outcome.Broker, err)
		}
	}
	fmt.Printf("%s %s created on %d brokers\n", kind, name, len(outcomes))
	return nil
}
