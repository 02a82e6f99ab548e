package nightjar

import java.nio.ByteBuffer
import java.util.Collections

import org.apache.hadoop.conf.Configuration
import org.apache.hadoop.yarn.server.api.{ApplicationInitializationContext, ApplicationTerminationContext, AuxiliaryService}
import org.apache.spark.network.TransportContext
import org.apache.spark.network.server.{TransportServer, TransportServerBootstrap}
import org.apache.spark.network.shuffle.ExternalBlockHandler
import org.apache.spark.network.util.{MapConfigProvider, TransportConf}

/** Spark's shuffle service in a NodeManager, as EMR runs it: with all defaults, and without authentication.
  *
  * Spark's own wrapper, spark-network-yarn, is not on Maven Central in a version for this Spark. The service itself is.
  */
class ShuffleService extends AuxiliaryService("spark_shuffle") {
  private val transport = new TransportConf("shuffle", MapConfigProvider.EMPTY)
  private val blocks = new ExternalBlockHandler(transport, null)
  private var server: TransportServer = null

  override def serviceInit(conf: Configuration): Unit = {
    val port = conf.getInt("spark.shuffle.service.port", 7337)
    server = new TransportContext(transport, blocks).createServer(port, Collections.emptyList[TransportServerBootstrap]())
  }

  override def initializeApplication(context: ApplicationInitializationContext): Unit = ()

  override def stopApplication(context: ApplicationTerminationContext): Unit =
    blocks.applicationRemoved(context.getApplicationId.toString, false)

  override def getMetaData: ByteBuffer = ByteBuffer.allocate(0)

  override def serviceStop(): Unit = {
    if (server != null) server.close()
    blocks.close()
  }
}
