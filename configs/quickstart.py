import ml_collections


def get_config():
  config = ml_collections.ConfigDict()
  config.data = {'name': 'digits'}
  config.teacher = {'name': 'resnet8', 'training': {'epochs': 10}}
  config.student = {'name': 'resnet8', 'stem_width': 4, 'widths': (4, 4, 8)}
  config.optimizer = {'name': 'sgd'}
  config.schedule = {'name': 'cosine', 'rate': 0.1}
  config.batch_size = 64
  config.epochs = 5
  config.seeds = 3
  config.methods = ml_collections.ConfigDict(
    {'student alone': {'name': 'supervised'}, 'kd': {'name': 'kd'}},
    sort_keys=False,
  )
  return config
